"""Checkpoints with the file and entry names of earlier versions resume to the same weights."""

import torch
from interrupted_runs import train_until
from tiny import pretraining_model
from tiny_trainer import pretrainer

RUN = {
    "max_steps": 6,
    "burn_in_steps": 2,
    "codebook_refit": True,
    "codebook_restart_threshold": 0.9,
    "codebook_target_decay": 0.5,
    "momentum_distill": 0.4,
    "momentum_distill_ramp_steps": 0,
    "queue_size": 5,
    "stability_window": 2,
    "learning_rate": 1e-2,
    "save_strategy": "steps",
    "save_steps": 4,
}
# file now, file before, and entries as they were called before
NAMES = [
    ("codebook_state.pt", "codebook_care.pt", {"monitor": "watch", "teacher": "targets"}),
    ("momentum.pt", "momentum.pt", {"encoder": "copies"}),
]
ENTRIES = {
    "codebook_care.pt": {"watch", "probe", "mim_open", "codes_given", "targets", "buffers"},
    "momentum.pt": {"copies", "queue"},
}


def rename(checkpoint):
    """Gives the state files of a checkpoint their earlier names."""
    for name, before, entries in NAMES:
        state = torch.load(checkpoint / name, weights_only=True)
        (checkpoint / name).unlink()
        state = {entries.get(entry, entry): value for entry, value in state.items()}
        assert state.keys() == ENTRIES[before]
        torch.save(state, checkpoint / before)


def test_resume_earlier_checkpoint_equals_unbroken_run(tmp_path, logged):
    whole = pretrainer(tmp_path / "whole", **RUN)
    whole.train()
    train_until(5, pretrainer, tmp_path / "broken", **RUN)
    rename(tmp_path / "broken" / "checkpoint-4")
    resumed = pretrainer(tmp_path / "broken", model=pretraining_model(seed=7, dropout=0.1), **RUN)
    resumed.train(resume_from_checkpoint=True)
    for ours, theirs in (
        (whole.model, resumed.model),
        (whole.momentum.encoder, resumed.momentum.encoder),
        (whole.codebook_callback.teacher, resumed.codebook_callback.teacher),
    ):
        state = theirs.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in ours.state_dict().items())
    assert not logged("runs.checkpoints"), "nothing is missing"
