"""Training with the presets `albef` and `codis`: what is used, the teacher's view, resuming."""

import pytest
import torch
from equal_tensors import assert_equal_tensors
from interrupted_runs import train_until
from tiny import pretraining_model, tiny_images, tiny_pairs
from tiny_recipe import TINY_RECIPE
from tiny_trainer import pretrainer, step_logs, training_arguments

from transformers_cbvila.training.pretrain import PretrainingJob, build_trainer
from transformers_cbvila.training.schedule import distillation_alpha

TERMS = {"codis_instance", "codis_transport", "codis_swap"}


def codis_model(**options):
    return pretraining_model(preset="codis", objectives={"codis": {"num_codes": 4, **options}})


def test_ddp_has_no_unused_parameter(tmp_path):
    """All are used from the first step, as nothing waits: DDP's search for unused ones may be off."""
    options = {"mlm_from_start": True, "codebook_init": False, "ddp_find_unused_parameters": False}
    model = pretraining_model(preset="albef")
    trainer = pretrainer(tmp_path, model=model, max_steps=2, **options)
    trainer.train()
    steps = trainer.optimizer.state
    assert all(parameter in steps for parameter in model.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("step, alpha", [(0, 0.0), (5, 0.2), (10, 0.4), (300, 0.4)])
def test_share_of_the_teacher_rises_in_the_first_epoch(step, alpha):
    assert distillation_alpha(step, 300, 0.4, 1 / 30) == pytest.approx(alpha)


@pytest.mark.parametrize("has_other_view", [False, True])
def test_another_view_is_one_more_pass_of_the_teacher(has_other_view, tmp_path):
    """The batch's other view of images is what the teacher embeds; masked words are predicted from the first view."""
    trainer = pretrainer(tmp_path, model=codis_model(), momentum_distill=0.4, queue_size=4, codebook_init=False)
    assert trainer.momentum is not None
    seen, encode = [], trainer.momentum.encoder.encode_images
    trainer.momentum.encoder.encode_images = lambda inputs: seen.append(inputs["pixel_values"]) or encode(inputs)
    weights, other = trainer.unwrapped_model.config.loss_weights(), tiny_images(seed=9)
    batch = tiny_pairs() | {"loss_weights": weights} | ({"other_pixel_values": other} if has_other_view else {})
    trainer.state.max_steps, trainer.state.global_step = 6, 3
    trainer.momentum.targets(batch, trainer.state)
    assert torch.equal(seen[0], batch["pixel_values"]) and len(seen) == 1 + has_other_view
    assert not has_other_view or torch.equal(seen[1], other)


@pytest.mark.parametrize(
    "preset, views, has_other_view",
    [("codis", {"flip": True}, True), ("codis", {}, False), ("albef", {"flip": True}, False)],
)
def test_other_views_are_drawn_where_a_teacher_sees_them(preset, views, has_other_view, tmp_path):
    recipe = {name: TINY_RECIPE[name] for name in ("vocab_size", "max_length")}
    sizes = {name: part for name, part in TINY_RECIPE["model_config"].items() if name != "codebook_size"}
    job = PretrainingJob(["scenes[rows=12]"], preset=preset, model_config=sizes, **recipe, **views)
    trainer = build_trainer(job, training_arguments(tmp_path, codebook_init=False, momentum_distill=0.4))
    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(3)])
    assert ("other_pixel_values" in batch) == has_other_view


def test_trainer_makes_a_teacher_by_itself_and_learns(tmp_path):
    trainer = pretrainer(tmp_path, model=codis_model(), max_steps=3, codebook_init=False)
    before = trainer.model.objectives["codis"].codes.clone()
    trainer.train()
    logs = step_logs(trainer)
    assert all({f"loss_{term}" for term in TERMS} <= set(log) for log in logs)
    assert all(0 < log["codis_usage"] <= 1 <= log["codis_perplexity"] for log in logs)
    assert not torch.equal(trainer.model.objectives["codis"].codes, before)


RUNS = {
    "codis": lambda: codis_model(freeze_codes_steps=4),
    "albef": lambda: pretraining_model(preset="albef", dropout=0.1),
    "soft targets": lambda: pretraining_model(objectives={"itc": {"targets": "soft"}}, dropout=0.1),
}


@pytest.mark.parametrize("name", RUNS)
def test_resumed_run_equals_an_unbroken_one(name, tmp_path):
    """Weights, the momentum encoder and the queue, which has come round."""
    options = {
        "max_steps": 6,
        "queue_size": 5,
        "momentum_distill": 0.4,
        "save_strategy": "steps",
        "save_steps": 3,
        "codebook_init": False,
        "muon_learning_rate": 2e-3,
    }
    whole = pretrainer(tmp_path / "whole", model=RUNS[name](), **options)
    whole.train()
    train_until(4, lambda *args, **kw: pretrainer(*args, model=RUNS[name](), **kw), tmp_path / "broken", **options)
    resumed = pretrainer(tmp_path / "broken", model=RUNS[name](), **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "broken" / "checkpoint-3"))
    assert_equal_tensors(whole.model.state_dict(), resumed.model.state_dict())
    assert_equal_tensors(whole.momentum.encoder.state_dict(), resumed.momentum.encoder.state_dict())
    assert_equal_tensors(whole.momentum.queue.read()._asdict(), resumed.momentum.queue.read()._asdict())
    assert [log["loss"] for log in step_logs(whole)] == [log["loss"] for log in step_logs(resumed)]
