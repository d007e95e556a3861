"""Comparing a published model with its original."""

import json
import shutil

import pytest
import torch
from publishable import save_checkpoint
from safetensors.torch import load_file, save_file
from tiny_heads import PUBLISHED_HEADS, build_head

from transformers_cbvila import (
    CBViLAForImageTextRetrieval,
    CBViLAForQuestionAnswering,
    CBViLAForVisualReasoning,
    CBViLAModel,
)
from transformers_cbvila.hub.checking import find_checkpoint
from transformers_cbvila.hub.kinds import kinds
from transformers_cbvila.hub.staging import stage
from transformers_cbvila.hub.verifying import compare, example_inputs, run_original, verify


def test_compare_accepts_outputs_within_rounding():
    expected = {"a": torch.tensor([1.0, float("nan")]), "b": torch.tensor([1, 2])}
    compare(expected, {"a": torch.tensor([1.000005, float("nan")]), "b": torch.tensor([1, 2])}, "x")


@pytest.mark.parametrize(
    "given, sentence",
    [
        ({"a": torch.tensor([1.1, 2.0])}, "x gives another a than the original, by up to 0.1"),
        ({"a": torch.tensor([1.0, float("nan")])}, "x gives another a"),
        ({"a": torch.tensor([1.0, float("inf")])}, "x gives another a"),
        ({"a": torch.tensor([1.0])}, r"x gives a of shape \(1,\), the original \(2,\)"),
        ({}, r"x gives \[\], the original gives \['a'\]"),
    ],
)
def test_compare_rejects_other_outputs(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        compare({"a": torch.tensor([1.0, 2.0])}, given, "x")


@pytest.mark.parametrize("head", PUBLISHED_HEADS)
def test_example_inputs_reach_every_weight(head):
    """Weights that no output depends on could be lost unseen; the base model has some for its heads only."""
    model = build_head(head)
    output = model(**example_inputs(kinds()[head.__name__], model.config))
    if output.get("loss") is not None:
        total = output.loss
    else:
        total = sum(value.sum() for value in output.values() if torch.is_tensor(value) and value.requires_grad)
    total.backward()
    idle = {name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None}
    heads_only = ("visual_queries.", "text_key_projection.", "patch_mask_token", "quantizer.")
    assert not idle if head is not CBViLAModel else all(name.startswith(heads_only) for name in idle), idle


def test_verify_names_missing_weights(tmp_path):
    folder = save_checkpoint(CBViLAForVisualReasoning, tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights.pop("reasoning_head.2.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="lacks weights of CBViLAForVisualReasoning: reasoning_head.2.weight"):
        run_original(find_checkpoint(folder))


def test_run_original_includes_the_pipeline(tmp_path):
    original = run_original(find_checkpoint(save_checkpoint(CBViLAForQuestionAnswering, tmp_path)))
    assert original.outputs["pipeline.scores"].shape == (3,)
    assert {"model.logits", "processor.pixel_values", "processor.input_ids"} <= set(original.outputs)


@pytest.mark.slow
def test_verify_rejects_a_staged_folder_that_differs(tmp_path):
    checkpoint = find_checkpoint(save_checkpoint(CBViLAForImageTextRetrieval, tmp_path / "model"))
    original = run_original(checkpoint)
    good = tmp_path / "good"
    good.mkdir()
    stage(checkpoint, "# card\n", good)
    verify(good, original)

    other = shutil.copytree(good, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    weights["objectives.itm.head.bias"] += 0.1
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="other gives another model.itm_logits than the original, by up to 0.1"):
        verify(other, original)

    lacking = shutil.copytree(good, tmp_path / "lacking")
    (lacking / "pair_similarity_cbvila.py").unlink()
    message = "does not load in a fresh process without this package: .*pair_similarity_cbvila"
    with pytest.raises(ValueError, match=message):
        verify(lacking, original)

    leaning = shutil.copytree(good, tmp_path / "leaning")
    config = json.loads((leaning / "config.json").read_text())
    del config["auto_map"]  # what only somebody with the package can load
    (leaning / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="does not load in a fresh process without this package"):
        verify(leaning, original)
