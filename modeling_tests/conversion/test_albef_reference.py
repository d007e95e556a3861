"""Converted checkpoints for entailment and NLVR2 against a reference implementation of ALBEF.

The writing out is held to recorded outputs of ALBEF first.
"""

import albef_fixtures
import albef_reference as reference
import pytest
import torch
from convert_albef import convert

HEADS = {"albef": {"vit_heads": 4}, "bert": {"num_attention_heads": 4}}


def test_reference_equals_albef_outputs():
    tensors = {k: v.double() for k, v in albef_fixtures.checkpoint("pretrain").items() if v.is_floating_point()}
    inputs, expected = (albef_fixtures.tensors("pretrain", which) for which in ("inputs", "expected"))
    image = reference.image_states(tensors, inputs["image"][1].double(), heads=4)
    torch.testing.assert_close(image, expected["image_embeds"][1], atol=1e-9, rtol=0)
    ids = inputs["text_ids"][1][inputs["text_mask"][1].bool()]
    joint = reference.text_states(tensors, ids, [image], heads=4)
    torch.testing.assert_close(joint, expected["multimodal_hidden"][1, : len(ids)], atol=1e-9, rtol=0)


def texts():
    ids = torch.tensor([[101, 5, 9, 77, 3], [101, 8, 60, 0, 0]])
    return ids, (ids != 0).long()


@torch.no_grad()
def test_entailment_equals_reference():
    tensors = reference.fine_tuned("entailment")
    model = convert(tensors, given=HEADS)[0].double()
    tensors = {name: value.double() for name, value in tensors.items()}
    images, (ids, mask) = torch.randn(2, 3, 32, 32, dtype=torch.float64), texts()
    logits = model(images, ids, mask).logits
    for row in range(2):
        image = reference.image_states(tensors, images[row], heads=4)
        joint = reference.text_states(tensors, ids[row][mask[row].bool()], [image], heads=4)
        torch.testing.assert_close(logits[row], reference.class_logits(tensors, joint[0]), atol=1e-9, rtol=0)
    assert model.label_ids(["contradiction", "neutral", "entailment"]).tolist() == [0, 1, 2]


@pytest.mark.parametrize("fusion", [1, 2])
@torch.no_grad()
def test_reasoning_equals_reference(fusion):
    tensors = reference.fine_tuned("reasoning", fusion=fusion)
    model = convert(tensors, given=HEADS)[0].double()
    tensors = {name: value.double() for name, value in tensors.items()}
    images, (ids, mask) = torch.randn(2, 2, 3, 32, 32, dtype=torch.float64), texts()
    logits, swapped = (model(x, ids, mask).logits for x in (images, images.flip(1)))
    for row in range(2):
        pair = [reference.image_states(tensors, image, heads=4) for image in images[row]]
        for found, asked in ((logits, pair), (swapped, pair[::-1])):
            joint = reference.text_states(tensors, ids[row][mask[row].bool()], asked, heads=4)
            torch.testing.assert_close(found[row], reference.class_logits(tensors, joint[0]), atol=1e-9, rtol=0)
    assert (logits - swapped).abs().max() > 1e-3  # the order of the images counts


def test_convert_counts_fusion_layers_with_twins_or_without():
    tensors = reference.fine_tuned("reasoning")
    for layers in (4, 6):
        given = {"albef": HEADS["albef"], "bert": HEADS["bert"] | {"num_hidden_layers": layers}}
        assert convert(tensors, given=given)[0].config.multimodal_config.num_hidden_layers == 2
    with pytest.raises(ValueError, match=r"bert.num_hidden_layers = 5, the checkpoint's tensors 4"):
        convert(tensors, given={"albef": {}, "bert": {"num_hidden_layers": 5}})


def test_convert_rejects_twin_layers_with_different_keys():
    tensors = reference.fine_tuned("reasoning")
    tensors["text_encoder.encoder.layer.3.crossattention.self.key.bias"] += 1
    with pytest.raises(ValueError, match=r"layer.3.crossattention.self.key.bias and .*layer.2.* differ"):
        convert(tensors, given=HEADS)
