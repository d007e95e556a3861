"""Training on two processes (gloo, CPU)."""

import os
import socket
import sys

import pytest
import torch
import torch.multiprocessing


def train(rank, folder, port, options):
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2"
    )
    torch.set_num_threads(1)
    sys.path.insert(0, os.path.dirname(__file__))
    from test_trainer import pretrainer, step_logs

    trainer = pretrainer(folder, **options)
    trainer.train()
    torch.save((trainer.model.state_dict(), step_logs(trainer)), os.path.join(folder, f"rank-{rank}.pt"))


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_both_processes_end_with_the_same_weights_and_codes(checkpointing, tmp_path):
    """Through k-means, restarts, both phases of burn-in and accumulation."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "burn_in_steps": 3,
        "codebook_refit": True,
        "codebook_restart_threshold": 0.3,
        "gradient_accumulation_steps": 2,
        "gradient_checkpointing": checkpointing,
    }
    torch.multiprocessing.spawn(train, args=(str(tmp_path), port, options), nprocs=2)
    (first, logs), (second, other_logs) = (torch.load(tmp_path / f"rank-{rank}.pt") for rank in range(2))
    assert len(logs) == 6 and logs == other_logs
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
