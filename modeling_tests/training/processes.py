"""Runs a function on two gloo processes of this machine."""

import os
import socket
import sys

import torch
import torch.multiprocessing


def _enter(rank, function, port, arguments):
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2"
    )
    torch.set_num_threads(1)
    sys.path.insert(0, os.path.dirname(__file__))
    function(rank, *arguments)


def on_two_processes(function, *arguments):
    """Calls `function(rank, *arguments)` on ranks 0 and 1; the function must be importable."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_enter, args=(function, port, arguments), nprocs=2)
