"""Checkpoints with the quantizer `adaptive` or the objective `raq` load and compute without this package."""

import pytest
import tiny
import torch
from publishable import run_offline
from safetensors.torch import load_file, save_file

from transformers_cbvila import CBViLAForPreTraining
from transformers_cbvila.hub.publishing import stage_repository

FIELDS = {
    "adaptive": {"quantizer_config": {"type": "adaptive", "tables": [[8, 8], [16, 4]]}},
    "raq": {"objectives": {"raq": {"feed": "own"}}},
}
# Loads the model, computes, saves it again with its code, and loads that.
PROGRAM = """
import sys
from safetensors.torch import load_file, save_file
from transformers import AutoModelForPreTraining

folder, again, inputs, outputs = sys.argv[1:]
for source in (folder, again):
    model = AutoModelForPreTraining.from_pretrained(source, trust_remote_code=True)
    found = model(**load_file(inputs))
    codes = model.cbvila.quantizer.head_codes()[0]
    if "raq" in model.objectives:
        codes = model.objectives["raq"].codes_at(codes, 7)
    save_file({"codes": codes.contiguous(), "indices": found.codebook_indices, "mim": found.mim_logits}, outputs)
    model.save_pretrained(again)
"""


@pytest.mark.parametrize("name", FIELDS)
def test_published_relative_computes_the_same_without_the_package(name, tmp_path):
    config = tiny.tiny_config()
    for field, value in FIELDS[name].items():
        setattr(config, field, value)
    model = tiny.build(CBViLAForPreTraining, config)
    model.save_pretrained(tmp_path / "model")
    tiny.tiny_processor().save_pretrained(tmp_path / "model")
    (tmp_path / "card.md").write_text("---\nlicense: apache-2.0\n---\n# card\n")
    # which compares outputs itself, in a process without the package
    folder = stage_repository(tmp_path / "model", "org/name", tmp_path / "staged", card=tmp_path / "card.md")
    inputs = {k: v for k, v in tiny.tiny_pairs().items() if k in ("pixel_values", "input_ids", "bool_masked_pos")}
    save_file(inputs, tmp_path / "inputs.safetensors")
    found = tmp_path / "outputs.safetensors"
    run_offline(PROGRAM, tmp_path, folder, tmp_path / "again", tmp_path / "inputs.safetensors", found)
    outputs, expected = load_file(found), model(**inputs)
    codes = model.cbvila.quantizer.head_codes()[0]
    if name == "raq":
        codes = model.objectives["raq"].codes_at(codes, 7)
    torch.testing.assert_close(outputs["codes"], codes)
    assert torch.equal(outputs["indices"], expected.codebook_indices)
    torch.testing.assert_close(outputs["mim"], expected.mim_logits)
