"""Options of TrainingArguments change losses by rounding only."""

import pytest
from tiny import pretraining_model
from tiny_trainer import ALL_TERMS, pretrainer, step_logs


def losses(folder, **options):
    """The loss terms of three steps from the same weights and batches, without dropout."""
    defaults = {"max_steps": 3, "learning_rate": 1e-3, "per_device_train_batch_size": 4}
    trainer = pretrainer(folder, model=pretraining_model(), **(defaults | options))
    trainer.train()
    return [{name: log[name] for name in {*ALL_TERMS, "loss"}} for log in step_logs(trainer)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return losses(tmp_path_factory.mktemp("plain"))


def assert_close(found, plain, tolerance):
    for step, (own, other) in enumerate(zip(found, plain, strict=True)):
        for name, value in other.items():
            assert own[name] == pytest.approx(value, rel=tolerance, abs=tolerance), (step, name)


def test_training_with_gradient_checkpointing(plain, tmp_path):
    assert_close(losses(tmp_path, gradient_checkpointing=True), plain, 1e-5)


def test_training_with_bf16(plain, tmp_path):
    found = losses(tmp_path, bf16=True)
    assert found != plain
    assert_close(found[:1], plain[:1], 0.03)
    assert_close(found, plain, 0.15)


def test_training_with_gradient_accumulation(plain, tmp_path):
    """Two micro-batches of two: the pixel loss, of no neighbours, is that of the four; ITC has fewer negatives."""
    found = losses(tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    assert found[0]["loss_pixel"] == pytest.approx(plain[0]["loss_pixel"], rel=1e-4)
    assert found[0]["loss_itc"] < plain[0]["loss_itc"], "ln 2 is the floor of chance, not ln 4"


@pytest.mark.slow
def test_training_compiled(plain, tmp_path):
    """Through the end of burn-in, where other losses come on."""
    options = {"burn_in_steps": 1}
    trainer = pretrainer(
        tmp_path, model=pretraining_model(), max_steps=3, torch_compile_backend="aot_eager", **options
    )
    trainer.train()
    eager = pretrainer(tmp_path, model=pretraining_model(), max_steps=3, **options)
    eager.train()
    for own, other in zip(step_logs(trainer), step_logs(eager), strict=True):
        for name in {*ALL_TERMS, "loss"} & set(other):
            assert own[name] == pytest.approx(other[name], rel=1e-3, abs=1e-4), name
