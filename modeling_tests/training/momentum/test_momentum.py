"""Momentum encoder and queue over training steps; `test_processes.py` has them on two processes."""

import copy
from collections import deque

import pytest
import torch
from equal_tensors import assert_equal_tensors
from interrupted_runs import AtStep, train_until
from safetensors.torch import load_file
from tiny import answering_model, pretraining_model
from tiny_trainer import logged_terms, pretrainer, step_logs, training_arguments

from transformers_cbvila.data.masking import generator_for
from transformers_cbvila.model.momentum_cbvila import MomentumPairs
from transformers_cbvila.training.momentum import callback as momentum_module
from transformers_cbvila.training.momentum.encoder import MomentumEncoder
from transformers_cbvila.training.momentum.queue import PairQueue
from transformers_cbvila.training.trainer import CBViLATrainer

ALBEF = {"momentum_distill": 0.4, "momentum_distill_ramp_steps": 0}


def numbered(first, count, captions=2):
    """Pairs whose every field says their number."""
    numbers = torch.arange(first, first + count)
    embeds = numbers.float().unsqueeze(1).expand(count, 3)
    return MomentumPairs(embeds, -embeds, numbers, numbers + 1000, numbers.unsqueeze(1).expand(count, captions))


# The queue


@pytest.mark.parametrize("batches", [[3, 3, 3, 3], [1, 2, 5, 4], [7], [8, 20], [2, 9, 1, 16, 3], [5] * 9])
@pytest.mark.parametrize("size", [1, 5, 7, 8])
def test_queue_keeps_the_last_pairs(size, batches):
    """As a list that drops its oldest entries does, pair by pair; batches larger than the queue among them."""
    queue, slow, first = PairQueue(size), deque(maxlen=size), 0
    assert queue.read() is None
    for count in batches:
        queue.write(numbered(first, count))
        for number in range(first, first + count):
            slow.append(number)
        first += count
        assert sorted(queue.read().image_ids.tolist()) == list(slow)
        assert queue.count == len(slow)
        for rows, expected in zip(queue.read(), numbered(0, first), strict=True):
            assert torch.equal(rows, expected[queue.read().image_ids]), "fields stay together"


def test_queue_replaces_the_oldest_pair():
    queue = PairQueue(4)
    queue.write(numbered(0, 3))
    queue.write(numbered(3, 3))
    assert queue.read().image_ids.tolist() == [4, 5, 2, 3] and queue.place == 2


def test_queue_of_size_0_stays_empty():
    queue = PairQueue(0)
    queue.write(numbered(0, 3))
    assert queue.read() is None


def test_queue_pads_known_text_ids():
    queue = PairQueue(4)
    for first, captions in ((1, 0), (2, 2), (3, 1)):
        queue.write(numbered(first, 1, captions))
    assert queue.read().known_text_ids.tolist() == [[-1, -1], [2, 2], [3, -1]]


def test_queue_state_dict_restores_its_place():
    queue, resumed, other = PairQueue(5), PairQueue(5), PairQueue(6)
    queue.write(numbered(0, 7))
    for loaded in (resumed, other):
        loaded.load_state_dict(copy.deepcopy(queue.state_dict()))
    for part in (queue, resumed):
        part.write(numbered(7, 2))
    assert (resumed.place, resumed.count) == (queue.place, queue.count)
    assert all(torch.equal(*rows) for rows in zip(queue.read(), resumed.read(), strict=True))
    assert other.read() is None, "of another size: it begins empty"


# The encoder


def disturb(model, seed):
    with torch.no_grad():
        for weight in model.parameters():
            weight += torch.randn(weight.shape, generator=generator_for(seed))


@pytest.mark.parametrize("predicts", [True, False])
def test_momentum_encoder_averages_the_model(predicts, tmp_path):
    trainer = pretrainer(tmp_path)
    encoder = MomentumEncoder(trainer.context, decay=0.75, predicts=predicts)
    expected = {name: weight.detach().clone() for name, weight in encoder.model.named_parameters()}
    assert all(torch.equal(trainer.model.get_parameter(name), weight) for name, weight in expected.items())
    for step in range(3):
        disturb(trainer.model, step)
        encoder.update()
        for name, weight in expected.items():
            expected[name] = 0.75 * weight + 0.25 * trainer.model.get_parameter(name).detach()
    for name, weight in encoder.model.named_parameters():
        torch.testing.assert_close(weight, expected[name], msg=name)
    assert not any(weight.requires_grad for weight in encoder.model.parameters())
    kept = {"vision_model", "text_model", "vision_projection", "text_projection"}
    assert {name for name, _ in encoder.model.cbvila.named_children()} == kept | (
        {"fusion_model"} if predicts else set()
    )
    assert list(encoder.model.objectives) == (["mlm"] if predicts else [])


@pytest.mark.parametrize("preset", ["recommended", "paper"])
def test_momentum_encoder_uses_current_codes(preset, tmp_path):
    """Where texts see visual words: codes that k-means has replaced are no weights to be averaged."""
    trainer = pretrainer(tmp_path, model=pretraining_model(preset=preset, itm_kv="quantized"))
    encoder = MomentumEncoder(trainer.context, decay=0.9, predicts=True)
    table = trainer.model.cbvila.quantizer.table
    table.set_codes(torch.randn(table.codes.shape, generator=generator_for(3)))
    disturb(trainer.model.cbvila.vision_model, 1)
    encoder.update()
    assert torch.equal(encoder.model.cbvila.quantizer.table.codes, table.codes)
    assert not torch.equal(
        encoder.model.cbvila.vision_model.embeddings.cls_token, trainer.model.cbvila.vision_model.embeddings.cls_token
    )


def test_momentum_encoder_loads_state_of_other_options(tmp_path):
    """A run with a queue that is resumed with distillation: the average of the fusion encoder begins then."""
    trainer = pretrainer(tmp_path)
    embedding = MomentumEncoder(trainer.context, decay=0.75, predicts=False)
    disturb(trainer.model, 0)
    predicting = MomentumEncoder(trainer.context, decay=0.75, predicts=True)
    predicting.load_state_dict(embedding.state_dict())
    for name, weight in predicting.model.named_parameters():
        begins = name.startswith(("cbvila.fusion_model.", "objectives.mlm.head."))
        source = trainer.model if begins else embedding.model
        assert torch.equal(weight, source.get_parameter(name)), name
    embedding.load_state_dict(predicting.state_dict())


# Steps


class Heard:
    """What the model is given at every training forward, and the state of the queue at that time."""

    def __init__(self, trainer):
        self.trainer, self.inputs = trainer, []
        trainer.model.register_forward_pre_hook(self._hear, with_kwargs=True)

    def _hear(self, module, args, inputs):
        if module.training:
            momentum = self.trainer.momentum and inputs["momentum"]
            self.inputs.append({**inputs, "momentum": copy.deepcopy(momentum)})


def plain_outputs(model, inputs):
    """Embeddings, and logits of masked tokens, of a model's own forward."""
    with torch.no_grad():
        both = model.cbvila(inputs["pixel_values"], inputs["input_ids"], inputs["attention_mask"])
        masked = model.cbvila(inputs["pixel_values"], inputs["input_ids_masked"], inputs["attention_mask"])
        logits = model.objectives["mlm"].head(masked.last_hidden_state)[inputs["mlm_labels"] != -100]
    return both.image_embeds, both.text_embeds, logits


@pytest.mark.parametrize("accumulation", [1, 2])
def test_momentum_pairs_precede_the_step_and_the_queue_follows(accumulation, tmp_path):
    """Every forward gets targets of an encoder that follows the steps before, this batch, and the queue."""
    averages, pairs_seen = [], []

    def average():
        model = copy.deepcopy(trainer.model).eval()
        if averages:
            for own, before in zip(model.parameters(), averages[-1].parameters(), strict=True):
                own.data = 0.6 * before.data + 0.4 * own.data
        averages.append(model)

    steps = [AtStep(step, average) for step in range(4)]
    options = {"gradient_accumulation_steps": accumulation, "learning_rate": 1e-2, "max_steps": 4}
    trainer = pretrainer(tmp_path, steps, queue_size=5, momentum_decay=0.6, **ALBEF, **options)
    heard = Heard(trainer).inputs
    trainer.train()
    assert len(heard) == 4 * accumulation
    for i, inputs in enumerate(heard):
        momentum, expected = inputs["momentum"], plain_outputs(averages[i // accumulation], inputs)
        assert momentum.alpha == 0.4
        torch.testing.assert_close(momentum.pairs.image_embeds[:2], expected[0])
        torch.testing.assert_close(momentum.pairs.text_embeds[:2], expected[1])
        torch.testing.assert_close(momentum.mlm_logits, expected[2])
        assert momentum.pairs.image_ids[:2].tolist() == inputs["image_ids"].tolist()
        earlier = sorted(zip(momentum.pairs.image_ids[2:].tolist(), momentum.pairs.text_ids[2:].tolist(), strict=True))
        assert earlier == sorted(pairs_seen[-5:])
        pairs_seen += zip(inputs["image_ids"].tolist(), inputs["text_ids"].tolist(), strict=True)
    assert trainer.momentum.queue.count == 5


def test_momentum_distill_ramps_up(tmp_path):
    trainer = pretrainer(tmp_path, momentum_distill=0.4, momentum_distill_ramp_steps=4)
    heard = Heard(trainer).inputs
    trainer.train()
    assert [inputs["momentum"].alpha for inputs in heard] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.4])
    assert [inputs["momentum"].mlm_logits is None for inputs in heard] == [True] + [False] * 5


def test_queue_places_never_written_have_no_effect(tmp_path):
    """Two queues that do not fill up, of which one has place for a thousand pairs more."""
    runs = []
    for size in (12, 1012):
        trainer = pretrainer(tmp_path, queue_size=size, **ALBEF)
        trainer.train()
        runs.append(trainer.model.state_dict())
        assert trainer.momentum.queue.count == 12
    assert_equal_tensors(runs[0], runs[1])


def test_queue_is_not_written_in_evaluation(tmp_path):
    options = {"eval_strategy": "steps", "eval_steps": 1, "max_steps": 2, "per_device_eval_batch_size": 2}
    trainer = pretrainer(tmp_path, queue_size=100, **ALBEF, **options)
    trainer.train()
    assert trainer.momentum.queue.count == 4
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(3)])
    with torch.no_grad():
        trainer.compute_loss(trainer.model.train(), batch)
    assert trainer.momentum.queue.count == 4, "nor does a loss without gradients"
    trainer.compute_loss(trainer.model.train(), batch)
    assert trainer.momentum.queue.count == 7


def test_queue_ids_default_to_fingerprints(tmp_path):
    """Equal images, and equal captions whatever their padding, are known to match in the queue as well."""
    trainer = pretrainer(tmp_path, queue_size=2)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in (0, 1)])
    batch = {name: value for name, value in batch.items() if not name.endswith("_ids") or "input" in name}
    heard = Heard(trainer).inputs
    for _ in range(2):
        trainer.compute_loss(trainer.model.train(), batch)
    pairs = heard[1]["momentum"].pairs
    assert pairs.image_ids[:2].tolist() == pairs.image_ids[2:].tolist() and pairs.image_ids.unique().numel() == 2
    assert pairs.text_ids[:2].tolist() == pairs.text_ids[2:].tolist() and pairs.text_ids.unique().numel() == 2
    assert pairs.known_text_ids.shape == (4, 0)


def test_momentum_encoder_ignores_a_skipped_step(tmp_path, monkeypatch):
    trainer = pretrainer(tmp_path, **ALBEF)
    before = copy.deepcopy(trainer.momentum.encoder.state_dict())
    disturb(trainer.model, 0)
    for skipped in (True, False):
        monkeypatch.setattr(type(trainer.accelerator), "optimizer_step_was_skipped", skipped)
        trainer.momentum.on_optimizer_step(trainer.args, trainer.state, trainer.control)
        same = all(torch.equal(value, before[name]) for name, value in trainer.momentum.encoder.state_dict().items())
        assert same == skipped


def test_momentum_encoder_draws_no_random_numbers(tmp_path):
    """What else a step draws, dropout and negatives, is what it would have been: every term but ITC is the same."""
    states = []
    for options in ({}, {"momentum_distill": 1e-12, "momentum_distill_ramp_steps": 1000}):
        trainer = pretrainer(tmp_path, max_steps=1, **options)
        trainer.train()
        states.append(torch.get_rng_state())
        first = {name: value for name, value in step_logs(trainer)[0].items() if name.startswith("loss_")}
        first.pop("loss_itc")
        states.append(first)
    assert torch.equal(states[0], states[2]) and states[1] == states[3]


def test_momentum_options_off_have_no_callback_and_no_files(tmp_path):
    trainer = pretrainer(tmp_path, max_steps=2, save_strategy="steps", save_steps=1)
    heard = []
    trainer.model.register_forward_pre_hook(lambda m, a, inputs: heard.append("momentum" in inputs), with_kwargs=True)
    trainer.train()
    assert trainer.momentum is None and heard and not any(heard)
    assert not (tmp_path / "checkpoint-2" / "momentum.pt").exists()


def test_momentum_without_itc_distils_mlm_only(tmp_path):
    """Preset paper; in burn-in there are no targets."""
    trainer = pretrainer(tmp_path, model=pretraining_model(preset="paper"), burn_in_steps=2, max_steps=4, **ALBEF)
    heard = Heard(trainer).inputs
    trainer.train()
    assert all(inputs["momentum"].pairs is None for inputs in heard)
    assert [inputs["momentum"].mlm_logits is None for inputs in heard] == [True, True, False, False]


def test_momentum_second_run_starts_over(tmp_path):
    trainer = pretrainer(tmp_path, queue_size=50, max_steps=2)
    for _ in range(2):
        trainer.train()
        assert trainer.momentum.queue.count == 4


# Checkpoints

RUN = {"queue_size": 5, **ALBEF, "max_steps": 7, "save_strategy": "steps", "burn_in_steps": 2, "learning_rate": 1e-2}


@pytest.mark.parametrize(
    "save_steps, options",
    [(4, {}), pytest.param(1, {}, marks=pytest.mark.slow), (5, {"gradient_accumulation_steps": 2})],
)
def test_momentum_resumed_equals_unbroken_run(save_steps, options, tmp_path):
    options = RUN | {"save_steps": save_steps} | options
    whole = pretrainer(tmp_path / "whole", **options)
    whole.train()
    train_until(save_steps + 1, pretrainer, tmp_path / "broken", **options)
    resumed = pretrainer(tmp_path / "broken", model=pretraining_model(seed=7, dropout=0.1), **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "broken" / f"checkpoint-{save_steps}"))
    pairs = [
        (whole.model.state_dict(), resumed.model.state_dict()),
        (whole.momentum.encoder.state_dict(), resumed.momentum.encoder.state_dict()),
        (whole.momentum.queue.read()._asdict(), resumed.momentum.queue.read()._asdict()),
    ]
    for ours, theirs in pairs:
        assert ours.keys() == theirs.keys()
        assert_equal_tensors(ours, theirs)
    logs = [
        [{name: log[name] for name in logged_terms(log)} for log in step_logs(trainer)] for trainer in (whole, resumed)
    ]
    assert logs[0] == logs[1]


def test_momentum_is_not_saved_with_the_model(tmp_path):
    """... and what a checkpoint lacks begins as if training began there."""
    options = {"max_steps": 2, "save_strategy": "steps", "save_steps": 2}
    trainer = pretrainer(tmp_path / "with", **ALBEF, queue_size=2, **options)
    trainer.train()
    plain = pretrainer(tmp_path / "without", **options)
    plain.train()
    folders = [tmp_path / name / "checkpoint-2" for name in ("with", "without")]
    weights = [load_file(folder / "model.safetensors") for folder in folders]
    assert {k: v.shape for k, v in weights[0].items()} == {k: v.shape for k, v in weights[1].items()}
    assert (folders[0] / "config.json").read_text() == (folders[1] / "config.json").read_text()
    assert {path.name for path in folders[0].iterdir()} - {path.name for path in folders[1].iterdir()} == {
        "momentum.pt"
    }
    trainer = pretrainer(tmp_path / "without", **ALBEF, queue_size=2, **(options | {"max_steps": 3}))
    heard = Heard(trainer).inputs
    trainer.train(resume_from_checkpoint=str(folders[1]))
    loaded = pretraining_model()
    loaded.load_state_dict(weights[1], strict=False)
    torch.testing.assert_close(heard[0]["momentum"].pairs.image_embeds, plain_outputs(loaded, heard[0])[0])


# What does not fit


@pytest.mark.parametrize(
    "options, message",
    [
        ({"momentum_distill": -0.1}, r"momentum_distill=-0.1 must be in \[0, 1\), such as 0.4"),
        ({"momentum_distill": 1.0}, r"momentum_distill=1.0 must be in \[0, 1\)"),
        ({"momentum_decay": 1.0}, r"momentum_decay=1.0 must be in \[0, 1\), such as 0.995"),
        ({"momentum_distill_ramp_steps": -1}, "momentum_distill_ramp_steps=-1 is no number of steps"),
        ({"queue_size": -1}, "queue_size=-1 is negative"),
    ],
)
def test_momentum_arguments_reject_bad_values(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        training_arguments(tmp_path, **options)


@pytest.mark.parametrize(
    "fields, options, message",
    [
        ({"preset": "paper"}, {"queue_size": 2}, "queue_size=2 is for ITC or CODIS, and their weights are 0"),
        ({"itc_weight": 0.0, "mlm_weight": 0.0}, ALBEF, "momentum_distill=0.4 is for ITC, CODIS and MLM"),
    ],
)
def test_momentum_rejects_models_without_itc_and_mlm(fields, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        pretrainer(tmp_path, model=pretraining_model(**fields), **options)


def test_momentum_rejects_other_heads(tmp_path):
    with pytest.raises(ValueError, match="a momentum encoder is for CBViLAForPreTraining, not for CBViLAForQuestion"):
        CBViLATrainer(model=answering_model(), args=training_arguments(tmp_path, queue_size=2))


def test_momentum_rejects_sharded_weights(tmp_path, monkeypatch):
    trainer = pretrainer(tmp_path, queue_size=2)
    monkeypatch.setattr(trainer, "is_deepspeed_enabled", True)
    with pytest.raises(ValueError, match="queue_size=2 needs a whole copy of the encoders, which sharded weights"):
        momentum_module.MomentumCallback(trainer.context)


@pytest.mark.parametrize("size, warned", [(2, 0), (3, 1)])
def test_queue_size_above_a_quarter_of_the_data_warns_once(size, warned, tmp_path, logged):
    trainer = pretrainer(tmp_path, queue_size=size, max_steps=3)
    trainer.train()
    messages = logged("momentum.callback")
    assert len(messages) == warned
    assert all("queue_size=3 is more than a quarter of the 8 training pairs" in message for message in messages)
