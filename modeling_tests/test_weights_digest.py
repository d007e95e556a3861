"""The digest of a checkpoint's weights covers every file that the model is loaded from."""

import json

import pytest
import torch
from safetensors.torch import save_file

from transformers_cbvila.weights_digest import weights_digest


@pytest.fixture
def folder(tmp_path):
    """Weights in two files and an adapter, as a model with a language model has it."""
    for number, name in enumerate(("model-1.safetensors", "model-2.safetensors", "of_lm/adapter_model.safetensors")):
        write(tmp_path / name, number)
    (tmp_path / "config.json").write_text(json.dumps({"language_model_adapter": "of_lm"}))
    return tmp_path


def write(path, number):
    path.parent.mkdir(exist_ok=True)
    save_file({"weight": torch.full((2,), float(number))}, path)


@pytest.mark.parametrize("name", ["model-1.safetensors", "model-2.safetensors", "of_lm/adapter_model.safetensors"])
def test_digest_depends_on_every_file(name, folder):
    before = weights_digest(folder)
    assert weights_digest(str(folder)) == before and len(before) == 64
    write(folder / name, 7)
    assert weights_digest(folder) != before


def test_digest_leaves_out_adapters_that_the_model_does_not_have(folder):
    (folder / "config.json").write_text("{}")
    before = weights_digest(folder)
    write(folder / "of_lm" / "adapter_model.safetensors", 7)
    assert weights_digest(folder) == before
    (folder / "config.json").unlink()
    assert weights_digest(folder) == before


def test_digest_of_no_weights_is_none(tmp_path):
    assert weights_digest(tmp_path) is None and weights_digest("org/name") is None
