"""Codes that nothing moves are warned of, and frozen codes stay."""

import pytest
import torch
from tiny import build, pretraining_model, tiny_config
from tiny_heads import batch_for
from tiny_trainer import pretrainer
from transformers import Trainer, TrainingArguments

from transformers_cbvila import CBViLAForMaskedImageModeling, CBViLAForPreTraining

HEADS = (CBViLAForPreTraining, CBViLAForMaskedImageModeling)
WARNING = "A training step has passed without after_step()"
# Codes that are moved outside autograd, or whose noise is scaled there.
MOVED = [
    {},
    {"codebook_dim": 32, "codebook_norm": "none"},
    {"quantizer_gradient": "gumbel", "codebook_update": "loss"},
]


def steps(model, count, update=False, accumulate=1, fused=False):
    batch = batch_for(type(model))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, fused=fused)
    for _ in range(count):
        for _ in range(accumulate):
            model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if update:
            model.after_step()


def after_step_warnings(logged):
    return [message for message in logged() if WARNING in message]


@pytest.mark.parametrize("fused", [False, True], ids=["loop", "fused"])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("fields", MOVED, ids=str)
def test_missing_after_step_is_warned_of_once(head, fields, fused, logged):
    model = build(head, **fields).train()
    steps(model, 1, fused=fused)
    assert not after_step_warnings(logged)
    steps(model, 3, fused=fused)
    (message,) = after_step_warnings(logged)
    assert "CBViLATrainer" in message and "k-means" in message


@pytest.mark.parametrize("head", HEADS)
def test_missing_after_step_is_not_warned_of_without_need(head, logged):
    steps(build(head).train(), 3, update=True)
    steps(build(head).train(), 3, update=True, accumulate=3)
    steps(build(head, codebook_update="loss").train(), 3)
    model = build(head).train()
    model.cbvila.quantizer.requires_grad_(False)
    steps(model, 3, fused=True)
    model = build(head).eval()
    for _ in range(2):
        model(**batch_for(head)).loss.backward()
        with torch.no_grad():
            next(model.parameters()).add_(1e-3)
    assert not after_step_warnings(logged)


def test_missing_after_step_of_the_plain_trainer_is_warned_of(tmp_path, logged):
    """With its own optimiser, which is a fused one."""
    ours = pretrainer(tmp_path, max_steps=3)
    options = {"max_steps": 3, "remove_unused_columns": False, "report_to": "none", "save_strategy": "no"}
    arguments = TrainingArguments(output_dir=str(tmp_path), learning_rate=1e-3, use_cpu=True, **options)
    data = {"train_dataset": ours.train_dataset, "data_collator": ours.data_collator}
    Trainer(model=pretraining_model(), args=arguments, **data).train()
    assert len(after_step_warnings(logged)) == 1


def test_trainer_calls_after_step(tmp_path, logged):
    pretrainer(tmp_path, max_steps=3).train()
    pretrainer(tmp_path, max_steps=2, gradient_accumulation_steps=2, per_device_train_batch_size=2).train()
    assert not after_step_warnings(logged)


def codes_of(model):
    codebook = model.cbvila.quantizer
    return {name: value.clone() for name, value in codebook.state_dict().items()}


def frozen_codebook(model):
    model.cbvila.quantizer.requires_grad_(False)


def frozen_all_but_heads(model):
    model.cbvila.requires_grad_(False)


FROZEN = [
    (frozen_codebook, {}),
    (frozen_codebook, {"quantizer_gradient": "gumbel"}),
    (frozen_codebook, {"codebook_update": "loss"}),
    (frozen_all_but_heads, {}),
    (frozen_all_but_heads, {"codebook_dim": 32, "codebook_norm": "none"}),  # nothing but codes in it
]
RESTARTS = {"codebook_restart_threshold": 0.9, "codebook_restart_grace": 0, "codebook_alarm_steps": 1}


@pytest.mark.parametrize("freeze, fields", FROZEN)
@pytest.mark.parametrize("fitted", [True, False])
def test_frozen_codes_stay_with_the_trainer(freeze, fields, fitted, tmp_path, logged):
    """Through k-means at the beginning and at the end of burn-in, moving averages and restarts."""
    config = tiny_config(**fields)
    model = pretraining_model(config)
    model.cbvila.quantizer.table.initialized.fill_(fitted)
    freeze(model)
    before = codes_of(model)
    options = RESTARTS if config.codebook_update == "ema" else {}
    options |= {"codebook_refit": True, "burn_in_steps": 2, "max_steps": 4}
    trainer = pretrainer(tmp_path, model=model, **options)
    trainer.train()
    for name, value in codes_of(model).items():
        torch.testing.assert_close(value, before[name], atol=0, rtol=0, msg=name)
    assert "The codebook is frozen" in logged.text and "these options have no effect: codebook_refit" in logged.text
    assert ("these codes are random" in logged.text) is not fitted


@pytest.mark.parametrize("freeze, fields", FROZEN[:2])
def test_codes_not_frozen_move(freeze, fields, tmp_path):
    model = pretraining_model(tiny_config(**fields))
    before = codes_of(model)
    pretrainer(tmp_path, model=model, max_steps=2).train()
    assert not torch.equal(codes_of(model)["table.codes"], before["table.codes"])
    assert model.cbvila.quantizer.is_fitted


def test_frozen_codes_stay_in_a_custom_loop():
    model = pretraining_model().train()
    model.cbvila.quantizer.requires_grad_(False)
    before = codes_of(model)
    steps(model, 3, update=True)
    assert all(torch.equal(value, before[name]) for name, value in codes_of(model).items())


@pytest.mark.parametrize("kind", [{}, {"quantizer_config": {"type": "residual", "depth": 2, "size": 16, "dim": 8}}])
def test_codes_rest_at_a_learning_rate_of_0(kind, tmp_path):
    """Also those that are moving averages, with their restarts; but they are fitted."""

    def codes(rate, max_steps):
        options = {"codebook_restart_threshold": 0.9, "codebook_restart_grace": 0, "burn_in_steps": 5}
        trainer = pretrainer(tmp_path, model=pretraining_model(**kind), codebook_learning_rate=rate, **options)
        trainer.args.max_steps = max_steps
        trainer.train()
        return torch.cat([table.codes for table in trainer.model.cbvila.quantizer.tables()])

    after_the_fit = codes(0, 1)
    assert torch.equal(codes(0, 4), after_the_fit)
    assert not torch.equal(codes(None, 4), after_the_fit)
    assert not torch.equal(
        torch.cat([t.codes for t in pretraining_model(**kind).cbvila.quantizer.tables()]), after_the_fit
    )
