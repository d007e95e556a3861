"""The names of the weights of every head, which published checkpoints rely on: held to a recorded list.

Record it again only when loading renames what is published: `python modeling_tests/contracts/test_state_dict_keys.py`.
The names of version 0.1 are recorded once and for all, because its checkpoints load.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tiny import build
from tiny_heads import HEADS, build_head
from version_0_1 import in_names_of_0_1, save_as_0_1

from transformers_cbvila import CBViLAForPreTraining, CBViLAForQFormerPreTraining, CBViLAModel
from transformers_cbvila.model.objective_mim_cls_bag_cbvila import CBViLAMIMClsBagOptions

RECORD = Path(__file__).with_name("state_dict_keys.json")
RECORD_OF_0_1 = Path(__file__).with_name("state_dict_keys_0_1.json")
# Options that add weights, beside the two presets.
CONFIGURATIONS = {
    "recommended": {},
    "paper": {"preset": "paper"},
    "everything": {
        "objectives": {"mim": {"head": "tied", "mask_stage": "pre"}, "mim_cls_bag": {"weight": 1.0}},
        "reasoning_fusion": "twin",
    },
}


def keys(head, configuration):
    return {
        name: list(value.shape) for name, value in build(head, **CONFIGURATIONS[configuration]).state_dict().items()
    }


def keys_of_qformer():
    return {name: list(value.shape) for name, value in build_head(CBViLAForQFormerPreTraining).state_dict().items()}


def everything():
    recorded = {f"{head.__name__} {name}": keys(head, name) for head in HEADS for name in CONFIGURATIONS}
    return recorded | {"CBViLAForQFormerPreTraining": keys_of_qformer()}


def test_qformer_keys_and_shapes_equal_recorded_ones():
    assert keys_of_qformer() == json.loads(RECORD.read_text())["CBViLAForQFormerPreTraining"]


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("head", HEADS)
def test_state_dict_keys_and_shapes_equal_recorded_ones(head, configuration):
    assert keys(head, configuration) == json.loads(RECORD.read_text())[f"{head.__name__} {configuration}"]


def assert_equal_weights(weights, expected):
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(weights[name], value), name


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("head", HEADS)
def test_version_0_1_checkpoint_loads_into_its_head(head, configuration, tmp_path):
    model = build(head, seed=1, **CONFIGURATIONS[configuration])
    expected = model.state_dict()
    old = in_names_of_0_1(expected)
    recorded = json.loads(RECORD_OF_0_1.read_text())[f"{head.__name__} {configuration}"]
    assert {name: list(value.shape) for name, value in old.items()} == recorded

    save_as_0_1(model, tmp_path)
    loaded, info = head.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert_equal_weights(loaded.state_dict(), expected)
    assert loaded.config.objectives == {"mim_cls_bag": CBViLAMIMClsBagOptions()} | model.config.objectives
    assert loaded.config.quantizer_config == model.config.quantizer_config

    other = build(head, seed=2, **CONFIGURATIONS[configuration])
    assert not all(torch.equal(value, expected[name]) for name, value in other.state_dict().items())
    other.load_state_dict(old)
    assert_equal_weights(other.state_dict(), expected)
    assert old.keys() == recorded.keys(), "the caller's weights were renamed"


@pytest.mark.parametrize("source", [CBViLAModel, CBViLAForPreTraining])
@pytest.mark.parametrize("head", HEADS)
def test_version_0_1_checkpoint_loads_into_other_heads(head, source, tmp_path):
    model = build(source, seed=1)
    model.save_pretrained(tmp_path / "new")
    save_as_0_1(model, tmp_path / "old")
    loaded = {}
    for name in ("new", "old"):
        torch.manual_seed(3)  # of what is not there
        loaded[name], info = head.from_pretrained(tmp_path / name, output_loading_info=True)
        loaded[name] = loaded[name].state_dict(), {key: set(value) for key, value in info.items() if value}
    assert loaded["old"][1] == loaded["new"][1]
    assert_equal_weights(loaded["old"][0], loaded["new"][0])


def test_version_0_1_checkpoint_is_saved_with_current_names(tmp_path):
    save_as_0_1(build(CBViLAForPreTraining, **CONFIGURATIONS["everything"]), tmp_path / "old")
    CBViLAForPreTraining.from_pretrained(tmp_path / "old").save_pretrained(tmp_path / "new")
    expected = build(CBViLAForPreTraining, **CONFIGURATIONS["everything"])
    expected.save_pretrained(tmp_path / "expected")
    with (
        safe_open(tmp_path / "new" / "model.safetensors", "pt") as ours,
        safe_open(tmp_path / "expected" / "model.safetensors", "pt") as theirs,
    ):
        assert set(ours.keys()) == set(theirs.keys())


if __name__ == "__main__":
    lines = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in everything().items())
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n")
