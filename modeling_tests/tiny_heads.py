"""Every head of the family with a batch that gives it a loss, for tests of what holds for all of them."""

import tiny
import tiny_qformer
import torch
from transformers.utils import ModelOutput

from transformers_cbvila import (
    CBViLAForImageTextRetrieval,
    CBViLAForMaskedImageModeling,
    CBViLAForPreTraining,
    CBViLAForQFormerPreTraining,
    CBViLAForQuestionAnswering,
    CBViLAForVisualEntailment,
    CBViLAForVisualReasoning,
    CBViLAModel,
)

HEADS = (
    CBViLAModel,
    CBViLAForPreTraining,
    CBViLAForImageTextRetrieval,
    CBViLAForQuestionAnswering,
    CBViLAForVisualEntailment,
    CBViLAForVisualReasoning,
    CBViLAForMaskedImageModeling,
)
# With those whose configuration is not that of a whole model.
PUBLISHED_HEADS = (*HEADS, CBViLAForQFormerPreTraining)


def build_head(head, **fields):
    """A tiny model of any published head."""
    if head is CBViLAForQFormerPreTraining:
        return tiny_qformer.build_qformer(head, **fields)
    return tiny.build(head, **fields)


def batch_for(head, batch=4, length=7, padding=(0, 2, 1, 3), side=tiny.SIDE):
    """Arguments of a head's forward with everything in it."""
    pairs = tiny.tiny_pairs(batch, length, padding, side=side)
    plain = {name: pairs[name] for name in ("pixel_values", "input_ids", "attention_mask")}
    if head is CBViLAForPreTraining:
        return pairs
    if head is CBViLAForImageTextRetrieval:
        return plain | {"return_loss": True}
    if head is CBViLAForQuestionAnswering:
        return plain | {"labels": tiny.tiny_answers(batch)}
    if head is CBViLAForVisualEntailment:
        return plain | {"labels": torch.arange(batch) % 3}
    if head is CBViLAForVisualReasoning:
        images = tiny.tiny_images(2 * batch, side).unflatten(0, (batch, 2))
        return plain | {"pixel_values": images, "labels": torch.arange(batch) % 2}
    if head is CBViLAForMaskedImageModeling:
        return plain | {"bool_masked_pos": pairs["bool_masked_pos"]}
    return plain


def part_of(key):
    """What a weight is part of, by its name: `objectives.mim`, `entailment_head`."""
    return ".".join(key.split(".")[: 2 if key.startswith("objectives.") else 1])


def floats(output, prefix=""):
    """All floating-point tensors of an output by their path in it."""
    if isinstance(output, torch.Tensor):
        return {prefix: output} if output.is_floating_point() else {}
    found = {}
    if isinstance(output, dict | ModelOutput):
        for name, value in output.items():
            found |= floats(value, f"{prefix}.{name}".lstrip("."))
    elif isinstance(output, tuple):
        for i, value in enumerate(output):
            found |= floats(value, f"{prefix}.{i}".lstrip("."))
    return found


def assert_close(actual, expected, atol=1e-5, skip=()):
    """Both outputs have the same floating-point tensors, within `atol`."""
    actual, expected = floats(actual), floats(expected)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        if name.partition(".")[0] not in skip:
            torch.testing.assert_close(
                actual[name].to(value), value, atol=atol, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
            )
