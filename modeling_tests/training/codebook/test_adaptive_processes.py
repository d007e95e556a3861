"""The adaptive quantizer on two processes equals one process with batches twice as large, noise included."""

import pytest
import torch
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
OBJECTIVES = {"post": {}, "pre": {"mim": {"mask_stage": "pre"}}}


def run(folder, processes, stage):
    config = tiny_config(objectives=OBJECTIVES[stage])
    tables = [[8, 8], [16, 4], [32, 2]]
    config.quantizer_config = {"type": "adaptive", "tables": tables, "balance": 1.0, "anneal_steps": 8}
    model = pretraining_model(config)
    trainer = pretrainer(folder, model=model, per_device_train_batch_size=4 // processes, **OPTIONS)
    trainer.train()
    return trainer.model.state_dict(), step_logs(trainer)


def run_both(rank, folder):
    return {stage: run(folder, 2, stage) for stage in OBJECTIVES}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("processes"))
    return run_in_two(run_both, folder, folder, joined=False)


@pytest.mark.parametrize("stage", OBJECTIVES)
def test_adaptive_two_processes_equal_one_process(stage, runs, tmp_path):
    (weights, logs), (others, other_logs) = runs[0][stage], runs[1][stage]
    assert logs == other_logs and "loss_adq_balance" in logs[0] and "codebook_bits_per_token" in logs[0]
    expected_weights, expected_logs = run(tmp_path, 1, stage)
    for log, expected in zip(logs, expected_logs, strict=True):
        assert log.keys() == expected.keys()
        for name in log:
            if name == "loss" or name.startswith("loss_"):
                assert log[name] == pytest.approx(expected[name], rel=1e-5, abs=1e-5), name
    for name, value in weights.items():
        assert torch.equal(value, others[name]), name
        torch.testing.assert_close(value, expected_weights[name], rtol=1e-5, atol=1e-5, msg=name)
    assert weights["cbvila.quantizer.steps"] == 4
