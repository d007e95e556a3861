"""Recipes by name from any folder, and options given beside them."""

import json

import pytest
import yaml
from tiny_recipe import TINY_RECIPE, parse_pretrain

from transformers_cbvila.cli.recipe_files import (
    FOLDER,
    applicable_options,
    differences,
    merge_mappings,
    recipe_names,
    recipe_path,
)


@pytest.mark.parametrize(
    "name", ["pretrain-tiny", "recipes/pretrain-tiny", "pretrain-tiny.yaml", "recipes/pretrain-tiny.yaml"]
)
def test_recipe_path_finds_bundled_recipes(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert recipe_path(name) == FOLDER / "pretrain-tiny.yaml"
    job, args, _ = parse_pretrain(["--config", name, "--train_data", "a", "--output_dir", "out", "--use_cpu"])
    assert args.max_steps == 22600 and job.model_config["quantizer_config"]["size"] == 128


def test_recipe_path_prefers_existing_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pretrain-tiny").write_text("max_steps: 3\n")
    assert recipe_path("pretrain-tiny").read_text() == "max_steps: 3\n"


@pytest.mark.parametrize(
    "name", ["pretrain-tny", "nowhere/pretrain-tiny.yaml", "../recipes/pretrain-tiny", "", "x" * 9999]
)
def test_recipe_path_missing_names_bundled_recipes(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="finetune-vqa-easy") as caught:
        recipe_path(name)
    assert len(str(caught.value)) < 1000
    with pytest.raises(SystemExit):
        parse_pretrain([f"--config={name}", "--train_data", "a", "--output_dir", "out"])
    assert "pretrain-tiny" in capsys.readouterr().err


def test_recipe_names_lists_bundled_recipes():
    assert {"pretrain-tiny", "pretrain-base", "finetune-vqa-easy"} <= set(recipe_names())
    assert {name.rpartition("-")[0] for name in recipe_names("finetune vqa")} == {"finetune-vqa"}
    with pytest.raises(
        FileNotFoundError, match=r"; there are finetune-vqa-base, .*; did you mean finetune-vqa-"
    ) as error:
        recipe_path("finetune-vqa-eas", "finetune vqa")
    assert "pretrain" not in str(error.value)


RECIPE = {
    "model_config": {"codebook_size": 128, "vision_config": {"hidden_size": 16, "patch_size": 4}},
    "lr_scheduler_type": "cosine_with_min_lr",
    "lr_scheduler_kwargs": {"min_lr_rate": 0.1},
    "max_steps": 100,
}


def test_merge_mappings_enters_mappings_and_null_removes():
    said = {"model_config": '{"mim_weight": 2, "vision_config": {"hidden_size": null, "image_size": 8}}'}
    assert merge_mappings(RECIPE, said) == {
        "model_config": {"codebook_size": 128, "mim_weight": 2, "vision_config": {"patch_size": 4, "image_size": 8}}
    }
    assert RECIPE["model_config"]["vision_config"] == {"hidden_size": 16, "patch_size": 4}, "the recipe is as it was"
    assert merge_mappings(RECIPE, {"lr_scheduler_kwargs": {"min_lr_rate": 0.5}}) == {
        "lr_scheduler_kwargs": {"min_lr_rate": 0.5}
    }
    assert merge_mappings(RECIPE, {"model_config": "{no json", "max_steps": 3, "other": "{}"}) == {}


def test_merge_mappings_drops_options_of_another_quantizer():
    recipe = {"model_config": {"projection_dim": 8, "quantizer_config": {"size": 128}}}

    def merged(quantizer):
        return merge_mappings(recipe, {"model_config": {"quantizer_config": quantizer}})["model_config"]

    assert merged({"type": "fsq", "levels": [3]}) == {
        "projection_dim": 8,
        "quantizer_config": {"type": "fsq", "levels": [3]},
    }
    for same in ({"type": "nearest", "dim": 4}, {"dim": 4}):
        assert merged(same)["quantizer_config"] == {"size": 128, **same}


def test_applicable_options_drops_options_of_another_choice():
    assert "lr_scheduler_kwargs" not in applicable_options(RECIPE, {"lr_scheduler_type": "linear"})
    assert (
        applicable_options(RECIPE, {"lr_scheduler_type": "cosine_with_min_lr"})
        == RECIPE
        == applicable_options(RECIPE, {})
    )
    lines = differences(RECIPE, {"lr_scheduler_type": "linear"})
    assert lines == [
        "lr_scheduler_type 'linear' (recipe: 'cosine_with_min_lr')",
        "lr_scheduler_kwargs left out, which belongs to the recipe's lr_scheduler_type",
    ]


def test_recipe_differences_are_listed_by_entry():
    said = {"model_config": {"codebook_size": 64, "vision_config": {"patch_size": 4, "image_size": 8}}}
    assert differences(RECIPE, said | {"max_steps": 7, "weight_decay": 0.1, "output_dir": "out"}) == [
        "max_steps 7 (recipe: 100)",
        "model_config.codebook_size 64 (recipe: 128)",
        "model_config.vision_config.image_size 8 (not in the recipe)",
        "weight_decay 0.1 (not in the recipe)",
    ]
    assert differences(RECIPE, {"max_steps": 100}) == []


def test_recipe_model_config_is_merged_with_the_given_one(tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    kwargs = {"num_decay_steps": 0.5, "min_lr_ratio": 0.1}
    path.write_text(
        yaml.safe_dump(TINY_RECIPE | {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": kwargs})
    )
    command = ["--config", str(path), "--train_data", "a", "--output_dir", str(tmp_path), "--max_steps", "9"]
    change = {"mim_weight": 2.0, "text_config": {"hidden_size": 32}}
    job, args, _ = parse_pretrain(
        [*command, "--model_config", json.dumps(change), '--lr_scheduler_kwargs={"min_lr_ratio": 0.2}']
    )
    assert job.model_config["objectives"] == {"mim": {"weight": 2.0}}
    assert job.model_config["quantizer_config"] == {"size": 8}
    assert job.model_config["text_config"] == TINY_RECIPE["model_config"]["text_config"] | {"hidden_size": 32}
    assert job.model_config["vision_config"] == TINY_RECIPE["model_config"]["vision_config"]
    assert args.lr_scheduler_kwargs == {"num_decay_steps": 0.5, "min_lr_ratio": 0.2}
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "Other than the recipe:",
        "  lr_scheduler_kwargs.min_lr_ratio 0.2 (recipe: 0.1)",
        "  max_steps 9 (recipe: 4)",
        "  model_config.text_config.hidden_size 32 (recipe: 16)",
        "  model_config.objectives.mim.weight 2.0 (not in the recipe)",
    ]
    assert args.is_given("max_steps") and args.is_given("learning_rate") and not args.is_given("weight_decay")
    assert job.is_given("vocab_size") and not job.is_given("flip")


def test_recipe_schedule_is_replaced_by_the_given_one(tmp_path):
    command = ["--config", "pretrain-tiny", "--train_data", "a", "--output_dir", str(tmp_path), "--use_cpu"]
    _, args, _ = parse_pretrain([*command, "--lr_scheduler_type", "linear"])
    assert args.lr_scheduler_type == "linear" and args.lr_scheduler_kwargs is None


SIZE = "model_config.quantizer_config.size 4 (recipe: 8)"


@pytest.mark.parametrize(
    "recipe, change, told",
    [
        ({"codebook_size": 8, "fusion_config": {"num_hidden_layers": 1}}, {"quantizer_config": {"size": 4}}, SIZE),
        ({"quantizer_config": {"size": 8}, "multimodal_config": {"num_hidden_layers": 1}}, {"codebook_size": 4}, SIZE),
        (
            {"codebook_size": 4, "fusion_config": {"num_hidden_layers": 2}},
            {"multimodal_config": {"num_hidden_layers": 1}},
            "model_config.multimodal_config.num_hidden_layers 1 (recipe: 2)",
        ),
    ],
)
def test_recipe_names_of_version_0_1_are_read(recipe, change, told, tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(TINY_RECIPE | {"model_config": recipe}))
    command = ["--config", str(path), "--train_data", "a", "--output_dir", str(tmp_path)]
    job, _, _ = parse_pretrain([*command, "--model_config", json.dumps(change)])
    assert job.model_config == {"quantizer_config": {"size": 4}, "multimodal_config": {"num_hidden_layers": 1}}
    (difference,) = capsys.readouterr().err.splitlines()[1:]
    assert difference.strip() == told


def test_recipe_part_that_is_no_mapping_is_rejected(capsys):
    change = json.dumps({"quantizer_config": 3, "codebook_size": 4})
    with pytest.raises(SystemExit):
        parse_pretrain(["--model_config", change, "--train_data", "a", "--output_dir", "out"])
    assert "quantizer_config is 3; expected a dictionary" in capsys.readouterr().err


def test_null_in_a_recipe_leaves_a_required_option_to_the_command_line(tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    path.write_text("output_dir: null\ntrain_data: null\nmax_steps: 9\n")
    with pytest.raises(SystemExit):
        parse_pretrain(["--config", str(path)])
    said = capsys.readouterr().err
    assert "the following arguments are required: " in said and "--output_dir runs/mine" in said
    _, args, _ = parse_pretrain(["--config", str(path), "--train_data", "a", "--output_dir", "out", "--use_cpu"])
    assert args.output_dir == "out" and args.max_steps == 9
