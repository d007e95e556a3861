"""Runs with quantizers, objectives and presets of other papers that are killed end as unbroken ones, bit for bit."""

import multiprocessing
import os
import signal

import pytest
import torch
from equal_tensors import assert_equal_tensors
from interrupted_runs import AtStep
from tiny import PATCH, tiny_labelled_rows, tiny_processor
from tiny_relatives import RELATIVES, model_of
from tiny_trainer import step_logs, training_arguments

from transformers_cbvila.data.collators import CBViLADataCollatorForPreTraining
from transformers_cbvila.data.label_maps import LabelMaps
from transformers_cbvila.data.pairs import ImageTextPairs
from transformers_cbvila.training.trainer import CBViLATrainer

OPTIONS = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "burn_in_steps": 1, "learning_rate": 1e-2}
TEACHER = {"queue_size": 5, "momentum_distill": 0.4}
# What else a run of each has, beside a fit of the codes by k-means.
RUNS = {name: {} for name in RELATIVES} | {"albef": TEACHER, "codis": TEACHER, "soft targets": TEACHER}


def trainer_of(folder, name, callbacks=()):
    model = model_of(name)
    maps = LabelMaps() if name == "class_guided" else None
    views = {"two_views": name in ("class_guided", "codis"), "crop_scale": 0.75, "flip": True}
    needs = {"max_length": 16, "masks_words": model.needs("masked_words")}
    return CBViLATrainer(
        model=model,
        args=training_arguments(folder, **OPTIONS, **RUNS[name]),
        train_dataset=ImageTextPairs(tiny_labelled_rows(), label_maps=maps, **views),
        data_collator=CBViLADataCollatorForPreTraining(tiny_processor(), PATCH, **needs),
        callbacks=list(callbacks),
    )


def train_and_be_killed(folder, name):
    """Trains until a step after the second checkpoint, where the process kills itself without notice."""
    torch.set_num_threads(1)
    trainer_of(folder, name, [AtStep(5, lambda: os.kill(os.getpid(), signal.SIGKILL))]).train()


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_killed_run_equals_an_unbroken_one(name, tmp_path):
    process = multiprocessing.get_context("forkserver").Process(
        target=train_and_be_killed, args=(tmp_path / "killed", name)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    whole, resumed = trainer_of(tmp_path / "whole", name), trainer_of(tmp_path / "killed", name)
    whole.train()
    resumed.train(resume_from_checkpoint=True)
    assert resumed.data_callback.resumed_from == 4
    assert_equal_tensors(whole.model.state_dict(), resumed.model.state_dict())
    assert step_logs(whole) == step_logs(resumed)
    if RUNS[name]:
        assert_equal_tensors(whole.momentum.encoder.state_dict(), resumed.momentum.encoder.state_dict())
        assert_equal_tensors(whole.momentum.queue.read()._asdict(), resumed.momentum.queue.read()._asdict())
