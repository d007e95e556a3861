"""Training on two processes (gloo, CPU) beside training on one with batches twice as large."""

import pytest
import torch
from test_trainer import ALL_TERMS, arguments, pretrainer, step_logs
from tiny import build, pretraining_model, tiny_pairs, tiny_rows
from two_processes import run_in_two

from transformers_cbvila.model.modeling_cbvila_image_text_retrieval import CBViLAForImageTextRetrieval
from transformers_cbvila.training.trainer import CBViLATrainer

# Seven rows in order: the last batch has two on the first process and one on the second.
SEVEN = {
    "rows": 7,
    "max_steps": 4,
    "train_sampling_strategy": "sequential",
    "accelerator_config": {"even_batches": False},
    "codebook_init": False,
}
RUNS = {
    "sgd": SEVEN | {"optim": "sgd", "learning_rate": 0.05},
    "adamw": SEVEN | {"max_steps": 3},
    "accumulation": {
        "optim": "sgd",
        "learning_rate": 0.05,
        "max_steps": 3,
        "gradient_accumulation_steps": 2,
        "codebook_init": False,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "per_device_eval_batch_size": 2,
    },
    "burn-in": SEVEN | {"optim": "sgd", "learning_rate": 0.05, "burn_in_steps": 2, "negative_hardening": "1,3"},
}


def run(folder, processes, **options):
    """Weights and logs of a run with batches of four on so many processes."""
    options = {"per_device_train_batch_size": 4 // processes, "rows": 8} | options
    trainer = pretrainer(folder, model=pretraining_model(), **options)
    trainer.train()
    evaluated = [log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log]
    return trainer.model.state_dict(), step_logs(trainer), evaluated


def all_runs(rank, folder):
    return {name: run(folder, 2, **options) for name, options in RUNS.items()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("processes"))
    return run_in_two(all_runs, folder, folder, joined=False)


def assert_same_logs(logs, expected):
    assert len(logs) == len(expected)
    for log, other in zip(logs, expected, strict=True):
        assert log.keys() == other.keys()
        for name in log.keys() & (ALL_TERMS | {"loss", "grad_norm", "codebook_usage", "codebook_perplexity"}):
            assert log[name] == pytest.approx(other[name], rel=1e-5, abs=1e-5), name


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_are_one(name, runs, tmp_path):
    weights, logs, evaluated = runs[0][name]
    expected_weights, expected_logs, expected_evaluated = run(tmp_path, 1, **RUNS[name])
    assert_same_logs(logs, expected_logs)
    assert evaluated == pytest.approx(expected_evaluated, rel=1e-5)
    if name != "adamw":  # which turns rounding of a gradient near 0 into a step
        for key, value in weights.items():
            torch.testing.assert_close(value, expected_weights[key], rtol=1e-5, atol=1e-5, msg=key)


@pytest.mark.parametrize("name", RUNS)
def test_processes_stay_the_same(name, runs):
    (first, logs, evaluated), (second, other_logs, other_evaluated) = runs[0][name], runs[1][name]
    assert logs == other_logs and evaluated == other_evaluated
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


def trained(rank, folder, options):
    trainer = pretrainer(folder, **options)
    trainer.train()
    return trainer.model.state_dict(), step_logs(trainer)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_both_processes_end_with_the_same_weights_and_codes(checkpointing, tmp_path):
    """Through k-means, restarts, both phases of burn-in and accumulation."""
    options = {
        "burn_in_steps": 3,
        "codebook_refit": True,
        "codebook_restart_threshold": 0.3,
        "gradient_accumulation_steps": 2,
        "gradient_checkpointing": checkpointing,
    }
    results = run_in_two(trained, tmp_path, str(tmp_path), options, joined=False)
    (first, logs), (second, other_logs) = results
    assert len(logs) == 6 and logs == other_logs
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
