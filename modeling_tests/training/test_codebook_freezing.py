"""Codes that nobody moves are noticed, and codes that are frozen stay."""

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


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if WARNING in record.getMessage()]


@pytest.mark.parametrize("fused", [False, True], ids=["loop", "fused"])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("fields", MOVED, ids=str)
def test_a_loop_that_forgets_the_codes_is_told_once(head, fields, fused, caplog):
    model = build(head, **fields).train()
    steps(model, 1, fused=fused)
    assert not warnings(caplog)
    steps(model, 3, fused=fused)
    (message,) = warnings(caplog)
    assert "CBViLATrainer" in message and "k-means" in message


@pytest.mark.parametrize("head", HEADS)
def test_who_moves_the_codes_or_has_none_to_move_is_not_told(head, caplog):
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
    assert not warnings(caplog)


def test_the_plain_trainer_moves_no_codes(tmp_path, caplog):
    """With its own optimiser, which is a fused one."""
    ours = pretrainer(tmp_path, max_steps=3)
    options = {"max_steps": 3, "remove_unused_columns": False, "report_to": "none", "save_strategy": "no"}
    arguments = TrainingArguments(output_dir=str(tmp_path), learning_rate=1e-3, use_cpu=True, **options)
    data = {"train_dataset": ours.train_dataset, "data_collator": ours.data_collator}
    Trainer(model=pretraining_model(), args=arguments, **data).train()
    assert len(warnings(caplog)) == 1


def test_our_trainer_moves_them(tmp_path, caplog):
    pretrainer(tmp_path, max_steps=3).train()
    pretrainer(tmp_path, max_steps=2, gradient_accumulation_steps=2, per_device_train_batch_size=2).train()
    assert not warnings(caplog)


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
def test_frozen_codes_stay_with_our_trainer(freeze, fields, fitted, tmp_path, caplog):
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
    assert "The codebook is frozen" in caplog.text and "these options have no effect: codebook_refit" in caplog.text
    assert ("these codes are random" in caplog.text) is not fitted


@pytest.mark.parametrize("freeze, fields", FROZEN[:2])
def test_codes_that_are_not_frozen_move(freeze, fields, tmp_path):
    model = pretraining_model(tiny_config(**fields))
    before = codes_of(model)
    pretrainer(tmp_path, model=model, max_steps=2).train()
    assert not torch.equal(codes_of(model)["table.codes"], before["table.codes"])
    assert model.cbvila.quantizer.is_fitted


def test_frozen_codes_stay_in_a_loop_of_ones_own():
    model = pretraining_model().train()
    model.cbvila.quantizer.requires_grad_(False)
    before = codes_of(model)
    steps(model, 3, update=True)
    assert all(torch.equal(value, before[name]) for name, value in codes_of(model).items())
