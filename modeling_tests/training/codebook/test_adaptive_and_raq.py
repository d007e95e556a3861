"""Training with the quantizer `adaptive` or the objective `raq`.

On two processes it equals one process with batches twice as large, and a resumed run equals an unbroken one.
"""

import pytest
import torch
from equal_tensors import assert_equal_weights
from interrupted_runs import RESUMED, train_until
from tiny import pretraining_model, tiny_config
from tiny_trainer import pretrainer, step_logs
from two_processes import run_in_two

# Seven rows in order: the last batch has two on the first process and one on the second.
OPTIONS = {
    "rows": 7,
    "max_steps": 4,
    "train_sampling_strategy": "sequential",
    "accelerator_config": {"even_batches": False},
    "codebook_init": False,
    "optim": "sgd",
    "learning_rate": 0.05,
}
ADAPTIVE = {"type": "adaptive", "tables": [[8, 8], [16, 4], [32, 2]], "balance": 1.0, "anneal_steps": 8}
RUNS = {
    "adaptive": ({}, ADAPTIVE, "loss_adq_balance"),
    "adaptive, masked before the encoder": ({"mim": {"mask_stage": "pre"}}, ADAPTIVE, "loss_adq_balance"),
    "raq": ({"raq": {}}, None, "loss_raq_codebook"),
}


def trainer_of(folder, name, **options):
    objectives, quantizer, _ = RUNS[name]
    config = tiny_config(objectives=objectives)
    config.quantizer_config = quantizer or config.quantizer_config
    return pretrainer(folder, model=pretraining_model(config), **options)


def run(folder, processes, name):
    trainer = trainer_of(folder, name, per_device_train_batch_size=4 // processes, **OPTIONS)
    trainer.train()
    return trainer.model.state_dict(), step_logs(trainer)


def run_all(rank, folder):
    return {name: run(folder, 2, name) for name in RUNS}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("processes"))
    return run_in_two(run_all, folder, folder, joined=False)


@pytest.mark.parametrize("name", RUNS)
def test_relative_on_two_processes_equals_one_process(name, runs, tmp_path):
    (weights, logs), (others, other_logs) = runs[0][name], runs[1][name]
    assert logs == other_logs and RUNS[name][-1] in logs[0]
    expected_weights, expected_logs = run(tmp_path, 1, name)
    for log, expected in zip(logs, expected_logs, strict=True):
        assert log.keys() == expected.keys()
        for term in log:
            if term == "loss" or term.startswith("loss_"):
                assert log[term] == pytest.approx(expected[term], rel=1e-5, abs=1e-5), term
    for key, value in weights.items():
        assert torch.equal(value, others[key]), key
        torch.testing.assert_close(value, expected_weights[key], rtol=1e-5, atol=1e-5, msg=key)
    (steps,) = [value for key, value in weights.items() if key.endswith("steps")]
    assert steps == OPTIONS["max_steps"]


@pytest.mark.parametrize("name", ["adaptive", "raq"])
def test_resumed_run_of_relative_equals_an_unbroken_one(name, tmp_path):
    options = RESUMED | {"save_steps": 3}
    unbroken = trainer_of(tmp_path / "unbroken", name, **options)
    unbroken.train()
    train_until(8, trainer_of, tmp_path / "broken", name, **options)
    resumed = trainer_of(tmp_path / "broken", name, **options)
    resumed.train(resume_from_checkpoint=True)
    assert_equal_weights(unbroken.model, resumed.model)
    assert step_logs(unbroken)[-1].keys() == step_logs(resumed)[-1].keys()
