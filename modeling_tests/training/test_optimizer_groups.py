"""Learning rates per tower, weight decay per parameter, and the schedules of the recipes."""

import pytest
import torch
import yaml
from tiny import pretraining_model
from tiny_recipe import TINY_RECIPE, parse_pretrain
from tiny_trainer import pretrainer, training_arguments

from transformers_cbvila.bundled import bundled_checkpoint
from transformers_cbvila.cli.recipe_files import FOLDER as RECIPES
from transformers_cbvila.model.modeling_cbvila_pretraining import CBViLAForPreTraining
from transformers_cbvila.training.pretrain import build_trainer


def groups(trainer):
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    groups = trainer.create_optimizer().param_groups
    return [({names[id(p)] for p in group["params"]}, group["lr"], group["weight_decay"]) for group in groups]


def test_optimizer_groups_without_tower_rates_are_those_of_trainer(tmp_path):
    assert len(groups(pretrainer(tmp_path, weight_decay=0.02))) == 2


def test_optimizer_groups_by_tower_rate(tmp_path):
    rates = {"vision_learning_rate": 1e-4, "codebook_learning_rate": 5e-4, "text_learning_rate": 2e-4}
    trainer = pretrainer(tmp_path, model=pretraining_model(), weight_decay=0.02, **rates)
    trainer.model.objectives["itm"].head.requires_grad_(False)
    made = groups(trainer)
    expected = [(rate, decay) for rate in (1e-3, 1e-4, 2e-4, 5e-4) for decay in (0.02, 0.0)]
    assert [(rate, decay) for _, rate, decay in made] == expected, "the rest first: its rate is the one logged"
    everything = [name for members, *_ in made for name in members]
    assert sorted(everything) == sorted(n for n, p in trainer.model.named_parameters() if p.requires_grad)
    for (members, _, _), tower in zip(
        made[2:], ["vision_model"] * 2 + ["text_model"] * 2 + ["quantizer"] * 2, strict=True
    ):
        assert members and all(name.startswith(f"cbvila.{tower}.") for name in members)
    decayed = set(trainer.get_decay_parameter_names(trainer.model))
    assert all((decay > 0) == (members <= decayed) for members, _, decay in made)
    assert not any("codes" in name or "bias" in name for members, _, decay in made if decay for name in members)


def test_optimizer_groups_of_rate_0_freeze_a_tower(tmp_path):
    trainer = pretrainer(tmp_path, vision_learning_rate=0.0, text_learning_rate=1e-4, max_steps=2)
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    assert trainer.lr_scheduler.get_last_lr() == pytest.approx([0.0] * 6), "linear, at its end"
    assert trainer.lr_scheduler.base_lrs == [1e-3, 1e-3, 0.0, 0.0, 1e-4, 1e-4]
    for name, value in trainer.model.named_parameters():
        assert torch.equal(value, before[name]) or "vision_model" not in name, name
    assert not torch.equal(before["objectives.itm.head.weight"], trainer.model.objectives["itm"].head.weight)


def test_optimizer_groups_reject_impossible_rates_and_optimizers(tmp_path):
    with pytest.raises(ValueError, match="text_learning_rate=-1 is negative"):
        training_arguments(tmp_path, text_learning_rate=-1)
    trainer = pretrainer(tmp_path, vision_learning_rate=1e-4)
    trainer.optimizer_cls_and_kwargs = (torch.optim.SGD, {"lr": 1.0, "params": []})
    with pytest.raises(ValueError, match="leave vision learning rates out"):
        trainer.create_optimizer()


def recipe_trainer(name, folder, pictures, **overrides):
    """The trainer of a recipe with a tiny model; sizes of the run as in the recipe."""
    recipe = yaml.safe_load((RECIPES / name).read_text())
    tiny = {key: TINY_RECIPE[key] for key in ("model_config", "vocab_size", "report_to", "use_cpu")}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe | tiny | {"tokenizer": None, "dataloader_num_workers": 0} | overrides))
    job, args, _ = parse_pretrain(
        ["--config", str(path), "--train_data", pictures, "--output_dir", str(folder / "out")]
    )
    return recipe, build_trainer(job, args)


def learning_rates(trainer, steps):
    """The learning rate of each of these optimiser steps, without training."""
    trainer.create_optimizer_and_scheduler(trainer.args.max_steps)
    schedule = trainer.lr_scheduler.lr_lambdas[0]
    return [trainer.args.learning_rate * schedule(step) for step in steps]


def test_pretrain_base_recipe_is_the_run_of_the_paper(tmp_path, picture_folder):
    recipe, trainer = recipe_trainer("pretrain-base.yaml", tmp_path, picture_folder)
    args, config = trainer.args, trainer.model.config
    assert args.per_device_train_batch_size * 8 * args.gradient_accumulation_steps == 512
    assert args.max_steps == round(30 * 5_100_000 / 512)
    assert (args.weight_decay, args.bf16, args.burn_in_steps, config.preset) == (0.02, True, 1000, "paper")
    last = args.max_steps
    rates = learning_rates(trainer, [0, 500, 1000, (1000 + last) // 2, last])
    assert rates == pytest.approx([1e-5, 5.5e-5, 1e-4, 5.5e-5, 1e-5], rel=1e-3)
    assert trainer.optimizer.defaults["betas"] == (0.9, 0.999) and "Adam" in type(trainer.optimizer).__name__
    assert "accelerate launch --num_processes 8" in (RECIPES / "pretrain-base.yaml").read_text()
    assert set(recipe) >= {"tokenizer", "streaming", "dataloader_num_workers"}
    assert next(iter(trainer.get_train_dataloader()))["pixel_values"].shape[0] == 64


def test_pretrain_tiny_recipe_builds(tmp_path, picture_folder):
    _, trainer = recipe_trainer("pretrain-tiny.yaml", tmp_path, picture_folder)
    rates = learning_rates(trainer, [0, 200, 18_600, 22_600])
    assert rates == pytest.approx([1e-5, 1e-3, 1e-3, 1e-5])


@pytest.mark.parametrize(
    "changes",
    [
        {"mim_weight": 0.0, "pixel_weight": 2.0, "fusion_config": {"layer_norm_eps": 1e-6}},
        {
            "objectives": {"mim": {"weight": 0.0}, "pixel": {"weight": 2.0}},
            "multimodal_config": {"layer_norm_eps": 1e-6},
        },
    ],
)
def test_pretrain_from_a_checkpoint_with_another_config(changes, tmp_path, picture_folder):
    given = TINY_RECIPE["model_config"] | {"codebook_decay": 0.9, "itm_weight": 0.5}
    _, first = recipe_trainer("pretrain-tiny.yaml", tmp_path, picture_folder, model_config=given)
    first.save_model(str(tmp_path / "start"))
    text = {"hidden_dropout_prob": 0.3}
    changes = changes | {"quantizer_config": {"temperature": 0.5}, "text_config": text}
    path = tmp_path / "more.yaml"
    path.write_text(yaml.safe_dump({"model": str(tmp_path / "start"), "model_config": changes, "use_cpu": True}))
    data = ["--train_data", picture_folder, "--output_dir", str(tmp_path / "more"), "--report_to", "none"]
    job, args, _ = parse_pretrain(["--config", str(path), *data])
    model = build_trainer(job, args).model
    before, config = first.model.config, model.config
    assert {name: config.objectives[name].weight for name in ("mim", "pixel", "itm")} == {
        "mim": 0.0,
        "pixel": 2.0,
        "itm": 0.5,
    }
    assert (config.quantizer_config.temperature, config.quantizer_config.decay) == (0.5, 0.9)
    fusion = before.multimodal_config.to_dict() | {"layer_norm_eps": 1e-6}
    assert config.multimodal_config.to_dict() | {"dtype": None} == fusion | {"dtype": None}
    assert model.config.text_config.to_dict() | {"dtype": None} == {**before.text_config.to_dict(), **text}
    of_mim = ("objectives.mim.", "cbvila.visual_queries.mask_token")
    expected = {n: w for n, w in first.model.state_dict().items() if not n.startswith(of_mim)}
    assert model.state_dict().keys() == expected.keys(), "an objective without a weight has no head, nor hides patches"
    for name, weight in expected.items():
        assert torch.equal(model.state_dict()[name], weight), name


def test_pretrain_from_a_bundled_name(tmp_path, picture_folder):
    data = ["--train_data", picture_folder, "--output_dir", str(tmp_path / "more"), "--report_to", "none"]
    job, args, _ = parse_pretrain(["--model", "cbvila-tiny", *data, "--use_cpu", "--max_steps", "1"])
    trainer = build_trainer(job, args)
    start = CBViLAForPreTraining.from_pretrained(bundled_checkpoint("cbvila-tiny"))
    for name, weight in start.state_dict().items():
        assert torch.equal(trainer.model.state_dict()[name], weight), name
    assert len(trainer.processing_class.tokenizer) == start.config.text_config.vocab_size


@pytest.mark.parametrize(
    ("name", "before"),
    [
        ("pretrain-tiny", {"warmup_steps": 200, "lr_scheduler_kwargs": {"num_decay_steps": 4000}}),
        ("pretrain-base", {"warmup_steps": 1000}),
        ("finetune-retrieval-emoji", {"warmup_steps": 50}),
        ("finetune-retrieval-openclipart", {"warmup_steps": 50}),
        ("finetune-retrieval-flickr8k", {"warmup_steps": 50}),
        ("finetune-entailment-snli-ve", {"warmup_steps": 50}),
        ("finetune-reasoning-nlvr1", {"warmup_steps": 50}),
    ],
)
def test_recipe_shares_equal_the_former_steps(name, before, tmp_path):
    recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    schedule = {
        key: value for key, value in recipe.items() if key.startswith(("lr_", "warmup", "max_steps", "learning"))
    }
    in_steps = schedule | before
    in_steps["lr_scheduler_kwargs"] = schedule["lr_scheduler_kwargs"] | before.get("lr_scheduler_kwargs", {})
    assert in_steps != schedule
    last = recipe["max_steps"]
    steps = [0, 1, 49, 50, 199, 200, 201, 999, 1000, last // 2, last - 4001, last - 4000, last - 3999, last - 1, last]
    rates = [learning_rates(pretrainer(tmp_path, **options), steps) for options in (schedule, in_steps)]
    assert rates[0] == rates[1]


def test_recipe_schedule_scales_with_the_run(tmp_path):
    recipe = yaml.safe_load((RECIPES / "pretrain-tiny.yaml").read_text())
    schedule = {key: value for key, value in recipe.items() if key.startswith(("lr_", "warmup", "learning"))}
    rates = learning_rates(pretrainer(tmp_path, max_steps=500, **schedule), [5, 400, 411, 440, 499])
    assert rates[:3] == [1e-3] * 3 and 1e-3 > rates[3] > rates[4] > 1e-5


@pytest.mark.parametrize("steps", [4000, 500])
def test_num_decay_steps_longer_than_the_run_are_rejected(steps, tmp_path):
    schedule = {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": steps}}
    with pytest.raises(ValueError, match=f"are {steps + 10} together, and the run has 500"):
        training_arguments(tmp_path, max_steps=500, warmup_steps=10, **schedule)
    trainer = pretrainer(tmp_path, max_steps=-1, num_train_epochs=1, **schedule)
    with pytest.raises(ValueError, match="Give shares of the run"):
        trainer.train()
