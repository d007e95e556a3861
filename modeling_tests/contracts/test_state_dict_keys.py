"""The names of the weights of every head, which published checkpoints rely on: held to a recorded list.

Record it anew only with a conversion of what is published: `python modeling_tests/contracts/test_state_dict_keys.py`.
"""

import json
from pathlib import Path

import pytest
from tiny import build
from tiny_heads import HEADS

RECORD = Path(__file__).with_name("state_dict_keys.json")
# Options that add weights, beside the two presets.
CONFIGURATIONS = {
    "recommended": {},
    "paper": {"preset": "paper"},
    "everything": {"mim_head": "tied", "mim_cls_bag_weight": 1.0, "mim_mask_stage": "pre", "reasoning_fusion": "twin"},
}


def keys(head, configuration):
    return {
        name: list(value.shape) for name, value in build(head, **CONFIGURATIONS[configuration]).state_dict().items()
    }


def everything():
    return {f"{head.__name__} {name}": keys(head, name) for head in HEADS for name in CONFIGURATIONS}


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("head", HEADS)
def test_names_and_shapes_are_what_they_were(head, configuration):
    assert keys(head, configuration) == json.loads(RECORD.read_text())[f"{head.__name__} {configuration}"]


if __name__ == "__main__":
    lines = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in everything().items())
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n")
