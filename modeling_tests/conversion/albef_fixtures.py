"""The committed ALBEF checkpoints with their inputs and outputs, see fixtures/README.md."""

import json
from functools import cache
from pathlib import Path

from safe_loading import load_tensors
from safetensors.torch import load_file

FIXTURES = Path(__file__).parent / "fixtures"
CHECKPOINTS = {"pretrain": FIXTURES / "albef_tiny.pth", "vqa": FIXTURES / "vqa" / "albef_vqa.pth"}


@cache
def checkpoint(name):
    return load_tensors(CHECKPOINTS[name])


@cache
def albef_config(name):
    return json.loads((CHECKPOINTS[name].parent / "config.json").read_text())


def tensors(name, which):
    """`inputs` or `expected` of a checkpoint."""
    return load_file(CHECKPOINTS[name].parent / f"{which}.safetensors")
