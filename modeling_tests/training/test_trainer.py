import math
from pathlib import Path

import pytest
import torch
from equal_tensors import assert_equal_weights
from interrupted_runs import RESTARTS, RESUMED, AtStep, train_until
from tiny import (
    CODES,
    PATCHES,
    answering_model,
    build,
    half_image,
    pretraining_model,
    tiny_processor,
    tiny_rows,
)
from tiny_trainer import ALL_TERMS, BURN_IN_TERMS, HEALTH, logged_terms, pretrainer, step_logs, training_arguments
from transformers import TrainerCallback, TrainingArguments

from transformers_cbvila.data.collators import CBViLADataCollatorForQuestionAnswering
from transformers_cbvila.data.pairs import ImageTextPairs
from transformers_cbvila.model.modeling_cbvila_image_text_retrieval import CBViLAForImageTextRetrieval
from transformers_cbvila.training.arguments import CBViLATrainingArguments
from transformers_cbvila.training.codebook.callback import CodebookCallback
from transformers_cbvila.training.trainer import CBViLATrainer

# The schedule


def test_mlm_from_start_begins_before_mim(tmp_path):
    trainer = pretrainer(tmp_path, burn_in_steps=3, mlm_from_start=True)
    trainer.train()
    on = [logged_terms(log) - HEALTH for log in step_logs(trainer)]
    assert on == [BURN_IN_TERMS | {"loss_mlm"}] * 3 + [ALL_TERMS] * 3


class Movements(TrainerCallback):
    """Which of the codes and the rest each optimiser step moved."""

    def __init__(self, model):
        self.model, self.moved = model, []
        self.before = None

    def _state(self):
        codes = self.model.cbvila.quantizer.table.codes.detach().clone()
        rest = torch.cat(
            [p.detach().flatten() for n, p in self.model.named_parameters() if "quantizer.table.codes" not in n]
        )
        return codes, rest

    def on_step_begin(self, args, state, control, **kwargs):
        self.before = self._state()

    def on_step_end(self, args, state, control, **kwargs):
        pairs = zip(("codes", "rest"), self.before, self._state(), strict=True)
        self.moved.append({name for name, old, new in pairs if not torch.equal(old, new)})


CODES_TURN, OTHERS_TURN, JOINT = {"codes"}, {"rest"}, {"codes", "rest"}


@pytest.mark.parametrize(
    "turns, expected",
    [(None, [JOINT] * 5), ("1,2", [CODES_TURN, OTHERS_TURN, OTHERS_TURN, CODES_TURN, OTHERS_TURN])],
)
def test_alternate_updates_move_codes_and_the_rest_in_turns(turns, expected, tmp_path):
    """Weight decay and momentum move nothing out of turn either."""
    model = pretraining_model(preset="paper")
    movements = Movements(model)
    options = {"max_steps": 5, "weight_decay": 0.1, "lr_scheduler_type": "constant"}
    pretrainer(tmp_path, [movements], model, alternate_updates=turns, **options).train()
    assert movements.moved == expected


def test_alternate_updates_need_codes_learned_by_loss(tmp_path):
    with pytest.raises(ValueError, match="alternate_updates='1,1'.*needs codes.*by loss.*update='ema'"):
        pretrainer(tmp_path, alternate_updates="1,1")
    with pytest.raises(ValueError, match="alternate_updates='1,1'"):
        CBViLATrainer(
            model=answering_model(preset="paper"), args=training_arguments(tmp_path, alternate_updates="1,1")
        )


# Logs


def test_logs_have_every_loss_and_codebook_metric(tmp_path):
    trainer = pretrainer(tmp_path)
    trainer.train()
    logs = step_logs(trainer)
    assert len(logs) == 6
    for log in logs:
        assert logged_terms(log) == ALL_TERMS | HEALTH
        assert all(math.isfinite(log[name]) for name in ALL_TERMS)
        assert 0 < log["codebook_usage"] <= 1 <= log["codebook_perplexity"] <= CODES
        weights = trainer.model.config.loss_weights()
        total = sum(weights[name.removeprefix("loss_")] * log[name] for name in ALL_TERMS)
        assert log["loss"] == pytest.approx(total, rel=1e-3)


def test_logs_are_means_over_the_window(tmp_path):
    every = pretrainer(tmp_path)
    every.train()
    windows = pretrainer(tmp_path, logging_steps=3)
    windows.train()
    for index, log in enumerate(step_logs(windows)):
        steps = step_logs(every)[3 * index : 3 * index + 3]
        for name in ALL_TERMS:
            assert log[name] == pytest.approx(sum(step[name] for step in steps) / 3, rel=1e-4), name


@pytest.mark.parametrize("burn_in", [3, 0.5])
def test_burn_in_steps_turn_mim_and_mlm_on(burn_in, tmp_path):
    trainer = pretrainer(tmp_path, burn_in_steps=burn_in)
    trainer.train()
    on = [logged_terms(log) - HEALTH for log in step_logs(trainer)]
    assert on == [BURN_IN_TERMS] * 3 + [ALL_TERMS] * 3


def test_align_steps_learn_itc_alone_first(tmp_path):
    trainer = pretrainer(tmp_path, align_steps=2, burn_in_steps=4)
    trainer.train()
    on = [logged_terms(log) - HEALTH for log in step_logs(trainer)]
    assert on == [{"loss_itc"}] * 2 + [BURN_IN_TERMS] * 2 + [ALL_TERMS] * 2


def test_align_steps_need_itc(tmp_path):
    with pytest.raises(ValueError, match=r"align_steps=2: only pretraining with contrast \(ITC\)"):
        pretrainer(tmp_path, model=pretraining_model(itc_weight=0.0), align_steps=2)


def test_evaluation_logs_its_loss_only(tmp_path):
    trainer = pretrainer(tmp_path, eval_strategy="steps", eval_steps=3, burn_in_steps=3)
    trainer.train()
    evaluations = [log for log in trainer.state.log_history if "eval_loss" in log]
    assert len(evaluations) == 2 and not any(logged_terms(log) for log in evaluations)
    assert logged_terms(step_logs(trainer)[2]) == BURN_IN_TERMS | HEALTH
    assert trainer.evaluate()["eval_loss"] == pytest.approx(evaluations[-1]["eval_loss"], rel=1e-5)


def test_trainer_second_run_logs_its_own_steps(tmp_path):
    trainer = pretrainer(tmp_path, logging_steps=2, max_steps=3, learning_rate=0.0)
    trainer.train()
    times = []
    trainer.log = lambda logs, *rest: times.append(dict(trainer._times)) if "loss" in logs else None
    trainer.train()
    assert times == [dict.fromkeys([*ALL_TERMS, "total"], 2)]


def test_trainer_second_run_draws_the_same_negatives(tmp_path):
    seeds, trainer = [], pretrainer(tmp_path, max_steps=1, gradient_accumulation_steps=2)
    trainer.model.register_forward_pre_hook(
        lambda module, inputs, named: seeds.append(int(named["negative_seed"])), with_kwargs=True
    )
    trainer.train()
    trainer.train()
    assert len(set(seeds)) == 2 and seeds[:2] == seeds[2:]


def test_trainer_lowers_the_loss(tmp_path):
    trainer = pretrainer(tmp_path, max_steps=30, learning_rate=3e-3)
    trainer.train()
    losses = [log["loss"] for log in step_logs(trainer)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_negative_hardening_raises_hardness(tmp_path):
    hardness, trainer = [], pretrainer(tmp_path, negative_hardening="0.25,0.75", max_steps=8)
    trainer.model.register_forward_pre_hook(
        lambda module, inputs, named: hardness.append(named["negative_hardness"]), with_kwargs=True
    )
    trainer.train()
    assert hardness == [0, 0, 0, 0.25, 0.5, 0.75, 1, 1]


def test_weight_decay_applies_to_matrices_only(tmp_path):
    model = pretraining_model(preset="paper", objectives={"mim": {"head": "tied"}, "itc": {"weight": 1.0}})
    decayed = set(pretrainer(tmp_path, model=model).get_decay_parameter_names(model))
    for name in (
        "codes",
        "logit_scale",
        "scale",
        "cls_token",
        "mask_token",
        "position_embeddings",
        "bias",
        "layernorm",
    ):
        assert not [other for other in decayed if name in other.split(".") or other.endswith(f".{name}")], name
    assert "cbvila.fusion_model.layers.0.mlp.fc1.weight" in decayed


def test_trainer_rejects_plain_training_arguments(tmp_path):
    with pytest.raises(ValueError, match="TrainingArguments; CBViLATrainer takes CBViLATrainingArguments"):
        CBViLATrainer(model=pretraining_model(), args=TrainingArguments(output_dir=str(tmp_path)))


@pytest.mark.parametrize("model", [pretraining_model, answering_model])
def test_trainer_rejects_data_parallel_devices(model, tmp_path, monkeypatch):
    monkeypatch.setattr(CBViLATrainingArguments, "n_gpu", 2)
    with pytest.raises(ValueError, match="2 devices.*accelerate launch.*CUDA_VISIBLE_DEVICES=0"):
        CBViLATrainer(model=model(), args=training_arguments(tmp_path))


def test_trainer_rejects_batches_of_a_single_pair(tmp_path):
    with pytest.raises(ValueError, match="per_device_train_batch_size=1 on 1 process.*set the weights of both to 0"):
        pretrainer(tmp_path, per_device_train_batch_size=1, gradient_accumulation_steps=2)
    model = pretraining_model(itm_weight=0.0, itc_weight=0.0)
    pretrainer(tmp_path, model=model, per_device_train_batch_size=1, max_steps=1).train()
    with pytest.raises(ValueError, match=r"a single pair has no mismatch.*does not count\)\.$"):
        CBViLATrainer(
            model=build(CBViLAForImageTextRetrieval),
            args=training_arguments(tmp_path, per_device_train_batch_size=1),
            train_dataset=ImageTextPairs(tiny_rows()),
        )


# The codebook


@pytest.fixture
def fits(monkeypatch):
    """The seeds of all k-means runs."""
    seeds, fit = [], CodebookCallback.fit
    monkeypatch.setattr(
        CodebookCallback, "fit", lambda self, seed, *args: (seeds.append(seed), fit(self, seed, *args))[1]
    )
    return seeds


def test_codebook_init_fits_codes_to_features(tmp_path, fits):
    distances = []
    for codebook_init in (True, False):
        trainer = pretrainer(tmp_path, codebook_init=codebook_init, max_steps=1)
        trainer.train()
        assert bool(trainer.model.cbvila.quantizer.table.initialized) == codebook_init
        distances.append(step_logs(trainer)[0]["loss_commitment"])
    assert fits == [0]
    assert distances[0] < 0.5 * distances[1]


def test_codebook_init_skips_fitted_codes(tmp_path, fits):
    model = pretraining_model()
    model.cbvila.quantizer.table.set_codes(torch.randn(CODES, 8))
    pretrainer(tmp_path, model=model).train()
    pretrainer(tmp_path, codebook_init=False).train()
    assert fits == []


def test_codebook_refit_fits_when_burn_in_ends(tmp_path, fits):
    pretrainer(tmp_path, codebook_refit=True, burn_in_steps=3).train()
    assert fits == [0, 1]


def test_codebook_init_fits_again_after_align_steps(tmp_path, fits):
    pretrainer(tmp_path, align_steps=2).train()
    pretrainer(tmp_path, align_steps=2, burn_in_steps=4, codebook_refit=True).train()
    assert fits == [0, 1, 0, 1, 1]
    pretrainer(tmp_path, align_steps=2, codebook_init=False).train()
    assert len(fits) == 5


@pytest.mark.parametrize("codebook_init, expected", [(True, [0, 1]), (False, [1])])
def test_codebook_refit_once_if_burn_in_ends_with_alignment(codebook_init, expected, tmp_path, fits):
    trainer = pretrainer(tmp_path, align_steps=2, codebook_refit=True, codebook_init=codebook_init)
    trainer.train()
    assert fits == expected
    assert [logged_terms(log) - HEALTH for log in step_logs(trainer)] == [{"loss_itc"}] * 2 + [ALL_TERMS] * 4


def test_codebook_fit_keeps_random_state_and_training_mode(tmp_path):
    trainer = pretrainer(tmp_path)
    trainer.model.train()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    CodebookCallback(trainer.context).fit(seed=3)
    assert torch.equal(torch.get_rng_state(), before) and trainer.model.cbvila.vision_model.training


class PendingTokens(TrainerCallback):
    """How many tokens the codebook has counted before and after each optimiser step."""

    def __init__(self, model):
        self.table, self.before, self.after = model.cbvila.quantizer.table, [], []

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.before.append(int(self.table.pending_counts.sum()))
        self.expected = self.table.ema_counts.lerp(self.table.pending_counts, 0.01)

    def on_step_end(self, args, state, control, **kwargs):
        self.after.append(int(self.table.pending_counts.sum()))
        torch.testing.assert_close(self.table.ema_counts, self.expected)


def test_codes_move_once_per_optimizer_step(tmp_path):
    model = pretraining_model()
    tokens = PendingTokens(model)
    trainer = pretrainer(tmp_path, model=model, callbacks=[tokens], gradient_accumulation_steps=4, max_steps=3)
    trainer.train()
    assert tokens.before == [4 * 2 * PATCHES] * 2 + [4 * 2 * PATCHES] and tokens.after == [0] * 3


def test_gradient_accumulation_does_not_scale_the_loss(tmp_path):
    losses = []
    for steps in (1, 4):
        trainer = pretrainer(tmp_path, gradient_accumulation_steps=steps, max_steps=1, learning_rate=0.0)
        trainer.train()
        losses.append(step_logs(trainer)[0])
    assert losses[1]["loss"] == pytest.approx(losses[0]["loss"], rel=0.2)
    assert losses[1]["grad_norm"] < 2 * losses[0]["grad_norm"]


def test_codebook_restarts_during_burn_in_only(tmp_path):
    moved = []

    class Watch(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            table = trainer.model.cbvila.quantizer.table
            table.ema_counts[3] = 0.0
            table.ema_sums[3] = 0.0
            self.before = table.codes[3].clone()

        def on_step_end(self, args, state, control, **kwargs):
            moved.append(not torch.allclose(trainer.model.cbvila.quantizer.table.codes[3], self.before, atol=1e-3))

    # a code whose latents no token has: it lies opposite of the mean
    trainer = pretrainer(tmp_path, callbacks=[Watch()], burn_in_steps=4, **RESTARTS)
    trainer.model.cbvila.quantizer.table.set_codes(torch.randn(CODES, 8))
    trainer.train()
    assert moved[:3] == [True] * 3
    restarted = [log.get("codebook_restarted", 0) for log in step_logs(trainer)]
    assert min(restarted[:3]) > 0 and max(restarted[4:]) == 0


# Resuming


@pytest.mark.parametrize(
    "save_steps, options",
    [
        (1, {}),
        (3, {}),  # in the middle of an epoch of 4 steps
        (4, {}),  # between epochs, and where burn-in ends
        (5, {}),
        (3, {"gradient_accumulation_steps": 2}),
        (3, {"dataloader_num_workers": 1}),
        (3, {"muon_learning_rate": 4e-3}),
    ],
)
def test_resume_equals_unbroken_run(save_steps, options, tmp_path, fits):
    options = RESUMED | {"save_steps": save_steps} | options
    whole = pretrainer(tmp_path / "whole", **options)
    whole.train()
    whole_fits, stop = list(fits), save_steps + 1
    fits.clear()
    train_until(stop, pretrainer, tmp_path / "broken", **options)
    resumed = pretrainer(tmp_path / "broken", model=pretraining_model(seed=7, dropout=0.1), **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "broken" / f"checkpoint-{save_steps}"))
    assert whole_fits == [0, 1]
    assert fits == ([0, 1, 1] if save_steps == 4 else [0, 1]), "never at the start of the resumed run"
    assert_equal_weights(resumed.model, whole.model)
    losses = [[log["loss"] for log in step_logs(trainer)] for trainer in (whole, resumed)]
    assert losses[0] == losses[1]


# What is not finite


def spoil(model):
    with torch.no_grad():
        model.objectives["itm"].head.bias.fill_(math.nan)


@pytest.mark.parametrize("logging_steps", [1, 100])
def test_nan_loss_is_named_before_a_checkpoint_is_written(logging_steps, tmp_path):
    model = pretraining_model()
    options = {"save_strategy": "steps", "save_steps": 2, "logging_steps": logging_steps}
    trainer = pretrainer(tmp_path, model=model, callbacks=[AtStep(3, lambda: spoil(model))], **options)
    with pytest.raises(FloatingPointError, match="Loss itm became NaN or infinite"):
        trainer.train()
    assert [path.name for path in Path(tmp_path).glob("checkpoint-*")] == ["checkpoint-2"]


def test_nan_weights_are_not_written(tmp_path):
    """The loss of the step that spoils them is fine: only the next one would show it."""
    model = pretraining_model()
    hooks = []
    spoil_gradient = AtStep(
        1, lambda: hooks.append(model.objectives["pixel"].head.bias.register_hook(lambda g: g * math.nan))
    )
    options = {"save_strategy": "steps", "save_steps": 2}
    trainer = pretrainer(tmp_path, model=model, callbacks=[spoil_gradient], **options)
    with pytest.raises(FloatingPointError, match="weights are NaN or infinite at step 2"):
        trainer.train()
    assert not list(Path(tmp_path).glob("checkpoint-*"))


def test_nan_weights_are_not_written_by_save_model(tmp_path):
    model = pretraining_model()
    trainer = pretrainer(tmp_path, model=model, logging_steps=100, max_steps=1)
    trainer.train()
    spoil(model)
    with pytest.raises(FloatingPointError, match="objectives.itm.head"):
        trainer.save_model()


# Question answering


def test_trainer_trains_question_answering(tmp_path):
    rows = [
        {"image": half_image(colour, "top"), "question": ["is it red ?", "is it a half ?"], "answer": [answer, "yes"]}
        for colour, answer in (("red", "yes"), ("blue", "no"), ("green", "no"))
    ]
    trainer = CBViLATrainer(
        model=answering_model(),
        args=training_arguments(tmp_path, max_steps=30, learning_rate=5e-3),
        train_dataset=rows,
        eval_dataset=rows,
        data_collator=CBViLADataCollatorForQuestionAnswering(tiny_processor(), max_length=16),
    )
    trainer.train()
    logs = step_logs(trainer)
    assert logs[-1]["loss"] < 0.5 * logs[0]["loss"] and not logged_terms(logs[0])
    assert trainer.evaluate()["eval_loss"] < 1.5 * logs[-1]["loss"] + 0.5
