"""Training on two processes (gloo, CPU) equals training on one with batches twice as large."""

from pathlib import Path

import pytest
import tiny_trainer
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from equal_tensors import assert_equal_tensors
from tiny import pretraining_model
from tiny_trainer import ALL_TERMS, pretrainer, step_logs
from two_processes import run_in_two

from transformers_cbvila.model.modeling_cbvila_pretraining import CBViLAForPreTraining

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
    "momentum": SEVEN
    | {
        "optim": "sgd",
        "learning_rate": 0.05,
        "momentum_distill": 0.4,
        "momentum_distill_ramp_steps": 2,
        "momentum_decay": 0.5,
        "queue_size": 6,  # which does not hold whole batches, and comes round
    },
}
CODIS = {"codis": {"num_codes": 4}}
SOFT = {"itc": {"targets": "soft"}}
RUNS["codis"] = RUNS["momentum"] | {"preset": "codis", "objectives": CODIS}
RUNS["codis beside the codebook"] = RUNS["momentum"] | {"objectives": CODIS | {"itc": {"weight": 0.0}}}
# DDP raises an error at the second step if a parameter had no gradient in the first one.
RUNS["albef"] = RUNS["momentum"] | {"preset": "albef", "mlm_from_start": True, "ddp_find_unused_parameters": False}
RUNS["soft targets"] = SEVEN | {"optim": "sgd", "learning_rate": 0.05, "objectives": SOFT}
RUNS["soft targets with a queue"] = RUNS["momentum"] | {"objectives": SOFT}
RUNS["as in the blog"] = RUNS["soft targets"] | {"objectives": {"itc": {"targets": "soft", "compat": "blog"}}}
OF_THE_MODEL = ("preset", "objectives")


def run(folder, processes, **options):
    """Weights (also of a momentum encoder and a queue) and logs of a run with batches of four on so many processes."""
    fields = {name: options.pop(name) for name in OF_THE_MODEL if name in options}
    options = {"per_device_train_batch_size": 4 // processes, "rows": 8} | options
    trainer = pretrainer(folder, model=pretraining_model(**fields), **options)
    trainer.train()
    evaluated = [log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log]
    return trainer.model.state_dict() | _beside(trainer.momentum), step_logs(trainer), evaluated


def _beside(momentum):
    if momentum is None:
        return {}
    averages = {f"encoder.{name}": value for name, value in momentum.encoder.state_dict().items()}
    return averages | momentum.queue.read()._asdict()


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
def test_two_processes_equal_one_process(name, runs, tmp_path):
    weights, logs, evaluated = runs[0][name]
    expected_weights, expected_logs, expected_evaluated = run(tmp_path, 1, **RUNS[name])
    assert_same_logs(logs, expected_logs)
    assert evaluated == pytest.approx(expected_evaluated, rel=1e-5)
    if name != "adamw":  # which turns rounding of a gradient near 0 into a step
        for key, value in weights.items():
            torch.testing.assert_close(value, expected_weights[key], rtol=1e-5, atol=1e-5, msg=key)


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_stay_equal(name, runs):
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
def test_two_processes_end_with_equal_weights_and_codes(checkpointing, tmp_path):
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
    assert_equal_tensors(first, second)


ONE_STEP = RUNS["sgd"] | {"max_steps": 1}  # compiling takes most of a minute


def compiled(rank, folder):
    return run(folder, 2, **ONE_STEP, torch_compile=True, torch_compile_backend="eager")


@pytest.mark.slow
def test_two_compiled_processes_equal_one_process(tmp_path):
    """On several processes there are graph breaks at their messages, and nothing else changes."""
    (weights, logs, _), (others, _, _) = run_in_two(compiled, tmp_path, str(tmp_path), joined=False)
    expected_weights, expected_logs, _ = run(tmp_path, 1, **ONE_STEP)
    assert_same_logs(logs, expected_logs)
    for key, value in weights.items():
        assert torch.equal(value, others[key])
        torch.testing.assert_close(value, expected_weights[key], rtol=1e-5, atol=1e-5, msg=key)


SHARDED = {
    "recommended": {"burn_in_steps": 1, "codebook_refit": True},
    "checkpoint in burn-in": {"burn_in_steps": 2},  # MIM and MLM have had no gradient yet
    "paper": {},
    "checkpointing": {"gradient_checkpointing": True, "gradient_accumulation_steps": 2},
}


def sharded(rank, folder, name, fsdp, resume=None):
    """Logs of three steps with checkpoints, on sharded weights or not."""
    plain_arguments = tiny_trainer.training_arguments

    def arguments(*args, **options):
        made = plain_arguments(*args, **options)
        if fsdp:
            # Where there are no accelerators, accelerate falls back to DDP without a word.
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        return made

    tiny_trainer.training_arguments = arguments
    options = SHARDED[name] | {"save_strategy": "steps", "save_steps": 2}
    if fsdp:
        options |= {"fsdp": True, "fsdp_config": {"version": 2}}
    paper = {"preset": "paper", "quantizer_gradient": "straight_through"}
    trainer = pretrainer(folder, model=pretraining_model(**(paper if name == "paper" else {})), max_steps=3, **options)
    trainer.train(resume_from_checkpoint=resume)
    assert any(hasattr(parameter, "device_mesh") for parameter in trainer.model.parameters()) == fsdp
    trainer.save_model(f"{folder}/final")
    return step_logs(trainer)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARDED)
def test_fsdp_trains_like_whole_weights(name, tmp_path):
    """FSDP2: the same losses and codes as DDP, through k-means, checkpoints that load anywhere, and a resumed run."""
    whole, parts = str(tmp_path / "ddp"), str(tmp_path / "fsdp")
    expected, _ = run_in_two(sharded, tmp_path, whole, name, False, joined=False)
    logs, other_logs = run_in_two(sharded, tmp_path, parts, name, True, joined=False)
    assert logs == other_logs
    assert_same_logs(logs, expected)
    models = [CBViLAForPreTraining.from_pretrained(Path(folder) / "final") for folder in (whole, parts)]
    (state, other) = (model.state_dict() for model in models)
    assert {key: value.shape for key, value in state.items()} == {key: value.shape for key, value in other.items()}
    torch.testing.assert_close(
        other["cbvila.quantizer.table.codes"], state["cbvila.quantizer.table.codes"], rtol=1e-4, atol=1e-4
    )
    checkpoint = f"{parts}/checkpoint-2"
    resumed, _ = run_in_two(sharded, tmp_path, parts, name, True, checkpoint, joined=False)
    assert_same_logs(resumed, logs)
