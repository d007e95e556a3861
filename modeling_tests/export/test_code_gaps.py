"""How near to a tie two codes of a patch are: by hand, and in the report on an export."""

import pytest
import tiny
import torch
from tiny_quantizers import fitted_model

from transformers_cbvila import CBViLAForPreTraining
from transformers_cbvila.export.code_gaps import CodeGaps
from transformers_cbvila.export.parity import ComparedGraphs


@pytest.mark.parametrize("norm", ["l2", "none"])
@torch.no_grad()
def test_gap_is_the_difference_of_distances(norm):
    model = fitted_model({"type": "nearest", "size": 16, "dim": 8, "norm": norm}).cbvila
    images = tiny.tiny_images(3)
    found = model(pixel_values=images)
    others = found.codebook_indices.clone()
    others[1, 2] = (others[1, 2] + 1) % 16
    latent = model.quantizer.encode(found.vision_last_hidden_state[1, 3])
    code, other = (model.quantizer.table()[indices[1, 2]] for indices in (found.codebook_indices, others))
    further = (latent - other).square().sum() - (latent - code).square().sum()
    length = (2 * latent.square().sum() + code.square().sum() + other.square().sum()) / 4
    gaps = CodeGaps(model)
    given = (images.numpy(), found.codebook_indices.numpy())
    assert gaps.largest(*given, others.numpy()) == pytest.approx(float(further / length), rel=1e-4)
    assert gaps.largest(*given, found.codebook_indices.numpy()) == 0
    assert model.vision_model.dtype == torch.float32, "the model itself stays as it is"


class OneCodeOff:
    """A model's image encoder, which gives the last patch another code than the model if `is_off`."""

    description, folder = {}, None

    def __init__(self, model, is_off):
        self.model, self.is_off = model, is_off

    @torch.no_grad()
    def run(self, graph, inputs):
        indices = self.model(pixel_values=torch.from_numpy(inputs["pixel_values"])).codebook_indices.numpy()
        indices[-1, -1] = (indices[-1, -1] + self.is_off) % 16
        return {"codebook_indices": indices}


def test_compared_graphs_keep_the_largest_gap():
    model = fitted_model({"type": "nearest", "size": 16, "dim": 8}).cbvila
    forms = {"onnx": OneCodeOff(model, False), "int8": OneCodeOff(model, True)}
    compared = ComparedGraphs(OneCodeOff(model, False), forms, CodeGaps(model))
    expected = []
    for seed in range(3):
        images = tiny.tiny_images(2, seed=seed).numpy()
        indices = compared.run("image_encoder", {"pixel_values": images})["codebook_indices"]
        others = forms["int8"].run("image_encoder", {"pixel_values": images})["codebook_indices"]
        expected.append(CodeGaps(model).largest(images, indices, others))
    assert compared.gaps == {"onnx": 0, "int8": max(expected)} and min(expected) > 0
    assert compared.shares() == {"onnx": 1, "int8": 31 / 32}


@pytest.mark.parametrize(
    ("options", "can"),
    [
        ({"type": "nearest", "size": 16}, True),
        ({"type": "residual", "size": 8, "depth": 2}, False),
        ({"type": "fsq", "levels": [3, 3]}, False),
    ],
)
def test_gaps_are_of_one_table_of_codes(options, can):
    config = tiny.tiny_config()
    config.quantizer_config = options
    assert CodeGaps.can_measure(tiny.build(CBViLAForPreTraining, config).cbvila) is can
