"""Runs a function in two processes that form a group (gloo, CPU)."""

import multiprocessing
import os
import socket

import torch
import torch.distributed as dist
import torch.multiprocessing

# Processes fork from a server that has imported once what takes seconds, and has done nothing else.
multiprocessing.set_forkserver_preload(["transformers_cbvila.training.trainer"])


def _run(rank, work, folder, port, joined, args):
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2"
    )
    torch.set_num_threads(1)
    if joined:
        dist.init_process_group("gloo")
    torch.save(work(rank, *args), os.path.join(folder, f"rank-{rank}.pt"))
    if dist.is_initialized():
        dist.destroy_process_group()


def run_in_two(work, folder, *args, joined=True):
    """Returns what `work(rank, *args)` returns in each process.

    Args:
        work: A function of a module.
        *args: Its arguments after the rank.
        folder: Where the results pass through.
        joined: Whether the processes are a group already (a Trainer makes them one by itself).
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {"args": (work, str(folder), port, joined, args), "nprocs": 2, "start_method": "forkserver"}
    torch.multiprocessing.start_processes(_run, **options)
    return [torch.load(os.path.join(folder, f"rank-{rank}.pt"), weights_only=False) for rank in range(2)]
