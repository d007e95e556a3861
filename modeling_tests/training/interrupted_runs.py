"""Runs that stop in the middle, with options whose state has to survive in checkpoints."""

import pytest
from transformers import TrainerCallback

RESTARTS = {"codebook_restart_threshold": 0.3, "codebook_restart_grace": 0}
RESUMED = {
    "burn_in_steps": 4,
    "codebook_refit": True,
    **RESTARTS,
    "negative_hardening": "0.1,0.9",
    "max_steps": 9,
    "save_strategy": "steps",
    "lr_scheduler_type": "cosine",
}


class InterruptedRunError(Exception):
    """Raised in the middle of a run, where a person or a cluster would have stopped it."""


def interrupt():
    raise InterruptedRunError


class AtStep(TrainerCallback):
    """Calls `action` at the beginning of global step `step`."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.action()


def train_until(step, make_trainer, *args, **options):
    """Trains until global step `step` begins, where the run is interrupted."""
    with pytest.raises(InterruptedRunError):
        make_trainer(*args, callbacks=[AtStep(step, interrupt)], **options).train()
