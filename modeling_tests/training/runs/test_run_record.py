"""The record of the bundled checkpoint names the options of its recipe."""

import json
import re
from pathlib import Path

import pytest
import yaml
from tiny_recipe import parse_pretrain
from transformers import TrainingArguments

from transformers_cbvila.bundled import bundled_checkpoint
from transformers_cbvila.cli.recipe_files import FOLDER, with_nested_options
from transformers_cbvila.model.configuration_cbvila import CBViLAConfig
from transformers_cbvila.training.learning_rates import entries_in_steps
from transformers_cbvila.training.runs.run_record import recorded_options

RECIPE = FOLDER / "pretrain-tiny.yaml"
DATA = ["easy-vqa", "emoji", "openclipart"]


def options(*argv):
    """All options of a pretraining, as its record would hold them."""
    parsed = parse_pretrain(["--train_data", *DATA, "--output_dir", "out", "--use_cpu", *argv])
    return json.loads(json.dumps(recorded_options(*parsed[:2])))


def in_steps(run):
    """Options with warm-up and decay in steps, as the record has them, whose recipe says shares by now."""
    warmup = TrainingArguments("out", use_cpu=True, warmup_steps=run["warmup_steps"]).get_warmup_steps(
        run["max_steps"]
    )
    schedule = entries_in_steps(run["lr_scheduler_kwargs"], run["max_steps"])
    return run | {"warmup_steps": warmup, "lr_scheduler_kwargs": schedule}


@pytest.fixture(scope="module")
def record():
    return json.loads((Path(bundled_checkpoint("cbvila-tiny")) / "pretraining.json").read_text())


def test_bundled_checkpoint_record_equals_its_recipe(record):
    """Every option that the recipe names, and every other one at its default."""
    weights = re.search(r"--train_data_weights ([\d ]+\d)", RECIPE.read_text()).group(1).split()
    expected = options("--config", str(RECIPE), "--train_data_weights", *weights)
    # A record leaves out what transformers' arguments have by default, and options that came after it.
    found = with_nested_options(options() | record["job"] | record["arguments"])
    found, expected = in_steps(found), in_steps(expected)
    differing = {
        name: f"{found.get(name)} recorded, {expected.get(name)} by the recipe"
        for name in sorted(expected | found)
        if found.get(name) != expected.get(name)
    }
    assert not differing


def test_bundled_checkpoint_config_equals_its_recipe(record):
    recipe = yaml.safe_load(RECIPE.read_text())
    assert record["config"]["text_config"]["vocab_size"] == recipe["vocab_size"]
    assert_holds(CBViLAConfig.from_dict(record["config"]).to_dict(), with_nested_options(recipe)["model_config"])


def assert_holds(config, fields):
    for name, value in fields.items():
        if isinstance(value, dict):
            assert_holds(config[name], value)
        else:
            assert config[name] == value, name
