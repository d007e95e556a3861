"""Evaluation during pretraining: what `cbvila inspect` measures, and nothing changes in training."""

import json
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from equal_tensors import assert_equal_tensors
from tiny import SIDE
from tiny_trainer import step_logs, training_arguments
from transformers.integrations import TensorBoardCallback, TrackioCallback
from two_processes import run_in_two

from transformers_cbvila import CBViLAForPreTraining, CBViLAProcessor
from transformers_cbvila.data.measured_pairs import MeasuredPairs
from transformers_cbvila.inspection.measure import inspect_pretraining
from transformers_cbvila.training.context import TrainingContext
from transformers_cbvila.training.held_out_pairs import held_out_pairs
from transformers_cbvila.training.pretrain import PretrainingJob, build_trainer, pretrain

DROPOUT = {"text_config": {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}}
EVERY_STEP = {"eval_strategy": "steps", "eval_steps": 1, "eval_on_start": True}
MOMENTUM = {"momentum_distill": 0.4, "momentum_distill_ramp_steps": 2, "queue_size": 6}


def job_on(data, model, evaluated=(), **options):
    if evaluated:
        options |= {"eval_data": list(evaluated), "eval_rerank_k": 2}
    return PretrainingJob([data], model=model, max_length=16, **options)


def state_after(data, model, folder, evaluated, **options):
    """Everything that a run leaves: weights, a momentum encoder and its queue, logs of steps, the random state."""
    job = job_on(data, model, evaluated, crop_scale=0.7, model_config=DROPOUT)
    trainer = build_trainer(job, training_arguments(folder, max_steps=3, **options))
    trainer.train()
    tensors = {**trainer.unwrapped_model.state_dict(), "torch": torch.get_rng_state()}
    tensors |= {"numpy": torch.from_numpy(np.random.get_state()[1]), "python": torch.tensor(random.getstate()[1])}
    if trainer.momentum is not None:
        tensors |= {f"momentum.{name}": value for name, value in trainer.momentum.encoder.state_dict().items()}
        tensors |= trainer.momentum.queue.read()._asdict()
    assert trainer.unwrapped_model.training
    return tensors, step_logs(trainer), trainer.state.log_history


@pytest.mark.parametrize(
    "options", [{}, MOMENTUM, {"burn_in_steps": 1, "codebook_target_decay": 0.9}], ids=["plain", "momentum", "teacher"]
)
def test_evaluation_leaves_training_bit_equal(options, data, pretrained, tmp_path):
    expected, expected_logs, _ = state_after(data, pretrained, tmp_path / "a", (), **options)
    tensors, logs, history = state_after(data, pretrained, tmp_path / "b", [data], **options, **EVERY_STEP)
    assert_equal_tensors(tensors, expected)
    assert logs == expected_logs and len(logs) == 3
    evaluated = [log for log in history if "eval_loss" in log]
    assert [log["step"] for log in evaluated] == [0, 1, 2, 3]
    assert evaluated[0]["eval_loss"] != evaluated[-1]["eval_loss"]


def test_evaluation_draws_no_random_weights(data, pretrained, tmp_path):
    config = {"codebook_size": 8, **{part: {"num_hidden_layers": 1} for part in ("vision_config", "text_config")}}
    config["vision_config"] |= {"image_size": 32, "patch_size": 8}
    models = [
        build_trainer(
            PretrainingJob([data], tokenizer=pretrained, model_config=config, eval_data=evaluated),
            training_arguments(tmp_path),
        ).model.state_dict()
        for evaluated in ([], [data])
    ]
    assert_equal_tensors(*models)


def test_pretrain_logs_and_records_what_inspect_measures(data, pretrained, tmp_path, capsys):
    args = training_arguments(
        tmp_path, max_steps=2, per_device_train_batch_size=4, eval_strategy="steps", eval_steps=1
    )
    pretrain(job_on(data, pretrained, [data]), args)
    record = json.loads((tmp_path / "pretraining.json").read_text())
    rows = held_out_pairs(job_on(data, pretrained, [data]))
    model, processor = CBViLAForPreTraining.from_pretrained(tmp_path), CBViLAProcessor.from_pretrained(tmp_path)
    options = {"batch_size": 4, "rerank_k": 2, "losses": True, "progress": False}
    expected = {
        f"eval_{name}": value for name, value in inspect_pretraining(model, processor, rows, **options).items()
    }
    assert record["figures"] == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert {"eval_loss_itm", "eval_codebook_usage", "eval_mim_advantage", "eval_image_retrieval_r1_combined"} <= set(
        expected
    )
    logged = [log for log in record["logs"] if "eval_loss" in log]
    assert [log["step"] for log in logged] == [1, 2]
    assert logged[-1] == {**record["figures"], "epoch": logged[-1]["epoch"], "step": 2}
    assert record["job"]["eval_data"] == ["rows.jsonl"] and record["job"]["eval_split"] == "validation"
    assert str(Path(data).parent) not in json.dumps(record)
    assert f"mim_advantage {' ' * 22}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("metric", "greater"),
    [
        (None, False),
        ("loss_itm", False),
        ("eval_mim", False),
        ("eval_mim_advantage", True),
        ("text_retrieval_r5", True),
    ],
)
def test_best_checkpoint_is_chosen_by_a_metric(metric, greater, data, pretrained, tmp_path):
    options = EVERY_STEP | {"eval_on_start": False, "save_strategy": "steps", "save_steps": 1}
    args = training_arguments(
        tmp_path, max_steps=3, load_best_model_at_end=True, metric_for_best_model=metric, **options
    )
    trainer = build_trainer(job_on(data, pretrained, [data]), args)
    assert trainer.args.greater_is_better is greater
    trainer.train()
    name = f"eval_{(metric or 'loss').removeprefix('eval_')}"
    values = {log["step"]: log[name] for log in trainer.state.log_history if name in log}
    best = (max if greater else min)(values.values())
    assert len(values) == 3 and trainer.state.best_metric == best == values[trainer.state.best_global_step]
    assert trainer.evaluate()[name] == pytest.approx(best, rel=1e-5)


def test_final_metrics_are_measured_unless_the_last_step_was(data, pretrained, tmp_path):
    trainer = build_trainer(job_on(data, pretrained, [data]), training_arguments(tmp_path, max_steps=2))
    trainer.train()
    assert not [log for log in trainer.state.log_history if "eval_loss" in log]
    metrics = trainer.final_metrics()
    assert trainer.final_metrics() == metrics == trainer.evaluate()
    assert len([log for log in trainer.state.log_history if "eval_loss" in log]) == 2


def test_greater_is_better_stays_as_given(data, pretrained, tmp_path):
    options = EVERY_STEP | {"metric_for_best_model": "codebook_top_share", "greater_is_better": True}
    assert build_trainer(
        job_on(data, pretrained, [data]), training_arguments(tmp_path, **options)
    ).args.greater_is_better


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric_for_best_model": "pigeon"}, "^metric_for_best_model='pigeon' is none of loss, loss_"),
        ({"per_device_eval_batch_size": 1}, "^per_device_eval_batch_size=1: .* take 2 or more"),
        ({"prediction_loss_only": True}, "^prediction_loss_only=True: pretraining is measured as `cbvila inspect`"),
    ],
)
def test_evaluation_rejects_options_before_training(options, message, data, pretrained, tmp_path):
    with pytest.raises(ValueError, match=message):
        build_trainer(job_on(data, pretrained, [data]), training_arguments(tmp_path, **EVERY_STEP, **options))


def test_evaluation_rejects_sharded_weights(data, pretrained, tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingContext, "has_sharded_weights", True)
    with pytest.raises(ValueError, match="^eval_data is measured with the whole model, which sharded weights"):
        build_trainer(job_on(data, pretrained, [data]), training_arguments(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eval_rows": 1, "eval_data": ["a"]}, "^eval_rows=1 must be at least 2"),
        ({"eval_rerank_k": -1, "eval_data": ["a"]}, "^eval_rerank_k=-1 must be at least 0"),
        ({"eval_split": "test"}, "^eval_split='test' is for eval_data"),
        ({"eval_rows": 50}, "^eval_rows=50 is for eval_data"),
        ({"eval_rerank_k": 0}, "^eval_rerank_k=0 is for eval_data"),
    ],
)
def test_evaluation_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        PretrainingJob(["b"], **options)


def test_eval_rows_are_evenly_spaced_over_all_sources(data, pretrained):
    captions = [row["captions"][0] for row in held_out_pairs(job_on(data, pretrained, [data, data]))]
    assert len(captions) == 16 and captions[:8] == captions[8:]
    few = [row["captions"][0] for row in held_out_pairs(job_on(data, pretrained, [data, data], eval_rows=4))]
    assert few == captions[::4]


def test_broken_image_of_eval_data_is_named_before_training(data, pretrained, tmp_path):
    lines = [json.loads(line) for line in Path(data).read_text().splitlines()]
    for line in lines:
        line["image"] = str(Path(data).parent / line["image"])
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    lines[5]["image"] = str(broken)
    rows = tmp_path / "held-out.jsonl"
    rows.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(ValueError, match="^Row 5 of .*held-out.jsonl: its image cannot be read"):
        held_out_pairs(job_on(data, pretrained, [str(rows)]))
    assert len(held_out_pairs(job_on(data, pretrained, [str(rows)], skip_bad_rows=True))) == 7


class KeptImages:
    """A writer of TensorBoard that keeps the images that it is given."""

    def __init__(self, log_dir=None):
        self.images = []

    def add_image(self, tag, image, step, dataformats):
        self.images.append((tag, image.shape, step, dataformats))

    def __getattr__(self, name):
        return lambda *given: None


class Kept(TensorBoardCallback):
    """TensorBoard without its package."""

    def __init__(self):
        self._SummaryWriter, self.tb_writer, self.logging_dir = KeptImages, KeptImages(), "unused"


@pytest.mark.parametrize(("weight", "shown"), [(1.0, True), (0.0, False)])
def test_reconstructions_go_to_tensorboard(weight, shown, data, pretrained, tmp_path):
    job = job_on(data, pretrained, [data], model_config={"mim_weight": weight})
    trainer = build_trainer(job, training_arguments(tmp_path, max_steps=2, eval_strategy="steps", eval_steps=2))
    kept = Kept()
    trainer.add_callback(kept)
    writer = kept.tb_writer
    trainer.train()
    assert writer.images == [("eval/reconstructions", (8 * SIDE, 4 * SIDE, 3), 2, "HWC")] * shown


class KeptByTrackio(TrackioCallback):
    """Trackio without its package."""

    def __init__(self):
        pass

    def __getattribute__(self, name):
        return (lambda *given, **more: None) if name.startswith("on_") else super().__getattribute__(name)


def test_reconstructions_go_to_trackio(data, pretrained, tmp_path, monkeypatch):
    logged = []
    args = training_arguments(tmp_path, max_steps=2, eval_strategy="steps", eval_steps=2)
    trainer = build_trainer(job_on(data, pretrained, [data]), args)
    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(log=logged.append, Image=lambda image: image))
    trainer.add_callback(KeptByTrackio())
    trainer.train()
    (found,) = logged
    image = found.pop("eval/reconstructions")
    assert found == {"train/global_step": 2}
    assert image.shape == (8 * SIDE, 4 * SIDE, 3) and image.dtype == np.uint8


def evaluated_in(rank, folder, data, pretrained):
    trainer = build_trainer(
        job_on(data, pretrained, [data]), training_arguments(folder, max_steps=2, **EVERY_STEP, **MOMENTUM)
    )
    trainer.train()
    history = trainer.state.log_history
    return trainer.unwrapped_model.state_dict(), [log for log in history if "eval_loss" in log], step_logs(trainer)


def test_two_processes_measure_the_same_as_one(data, pretrained, tmp_path):
    (weights, logs, steps), (others, other_logs, _) = run_in_two(
        evaluated_in, tmp_path, str(tmp_path), data, pretrained, joined=False
    )
    assert_equal_tensors(weights, others)
    assert logs == other_logs and len(logs) == 3 and len(steps) == 2
    rows = MeasuredPairs(held_out_pairs(job_on(data, pretrained, [data])))
    model = CBViLAForPreTraining.from_pretrained(pretrained)
    model.load_state_dict(weights)
    options = {"batch_size": 2, "rerank_k": 2, "losses": True, "progress": False}
    for name, value in inspect_pretraining(
        model, CBViLAProcessor.from_pretrained(pretrained), rows, **options
    ).items():
        assert logs[-1][f"eval_{name}"] == pytest.approx(value, rel=1e-5, abs=1e-6), name
