"""Images as visual words, and images drawn from visual words alone."""

import pytest
import torch
from tiny import CODES, PATCH, PATCHES, SIDE, build, pretraining_model, tiny_config, tiny_images, tiny_texts
from tiny_quantizers import fitted_model

from transformers_cbvila import CBViLAForMaskedImageModeling, CBViLAForPreTraining


@pytest.mark.parametrize("model_class", [CBViLAForPreTraining, CBViLAForMaskedImageModeling])
def test_detokenize_draws_what_reconstruct_does(model_class):
    model, pixel_values, texts = build(model_class), tiny_images(), tiny_texts()
    ids = model.tokenize(pixel_values)
    assert ids.shape == (4, PATCHES) and 0 <= int(ids.min()) <= int(ids.max()) < CODES
    whole = model.reconstruct(pixel_values)
    assert torch.equal(whole.codebook_indices, ids)
    torch.testing.assert_close(model.detokenize(ids), whole.pixel_values)
    with_captions = model.reconstruct(pixel_values, **texts).pixel_values
    torch.testing.assert_close(model.detokenize(ids, **texts), with_captions)
    assert not torch.allclose(with_captions, whole.pixel_values)


@pytest.mark.parametrize(
    "options",
    [
        {"type": "residual", "depth": 2, "size": 16, "dim": 8},
        {"type": "fsq", "levels": [3, 3, 3]},
        {"type": "adaptive", "tables": [[16, 8], [32, 4]], "router_heads": 4},
    ],
)
def test_detokenize_with_other_quantizers(options):
    model, pixel_values = fitted_model(options).eval(), tiny_images()
    ids = model.tokenize(pixel_values)
    torch.testing.assert_close(model.detokenize(ids), model.reconstruct(pixel_values).pixel_values)


def test_detokenize_grids_that_are_not_square():
    model, pixel_values = pretraining_model(), tiny_images()[:, :, :, : SIDE // 2]
    ids = model.tokenize(pixel_values, interpolate_pos_encoding=True)
    drawn = model.detokenize(ids, grid=(SIDE // PATCH, SIDE // PATCH // 2))
    whole = model.reconstruct(pixel_values, interpolate_pos_encoding=True).pixel_values
    torch.testing.assert_close(drawn, whole)
    with pytest.raises(ValueError, match=r"8 patches do not fill a grid of 2 x 2: give grid=\(rows, columns\)"):
        model.detokenize(ids)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.zeros(2, PATCHES), r"must be integers \(B, N\), got torch.float32 \(2, 16\)"),
        (torch.zeros(2, PATCHES, 2, dtype=torch.long), r"integers \(B, N\), got torch.int64 \(2, 16, 2\)"),
        (torch.full((1, PATCHES), CODES), "from 0 to 15, got 16 to 16"),
        (torch.full((1, PATCHES), -1), "from 0 to 15, got -1 to -1"),
    ],
)
def test_detokenize_refuses_what_are_no_codes(ids, message):
    with pytest.raises(ValueError, match=message):
        pretraining_model().detokenize(ids)


def test_tokenize_and_detokenize_name_what_a_model_lacks():
    ids = torch.zeros(1, PATCHES, dtype=torch.long)
    with pytest.raises(ValueError, match="normalize=True.*use reconstruct"):
        pretraining_model(objectives={"pixel": {"normalize": True}}).detokenize(ids)
    with pytest.raises(ValueError, match="fusion_visual_cls='vit'.*use reconstruct"):
        pretraining_model(tiny_config(fusion_visual_cls="vit")).detokenize(ids)
    with pytest.raises(ValueError, match="without the objective 'pixel'"):
        pretraining_model(objectives={"pixel": {"weight": 0.0}}).detokenize(ids)
    weights = {name: {"weight": 0.0} for name in ("mim", "pixel", "commitment", "codebook")}
    with pytest.raises(ValueError, match="has no codebook"):
        pretraining_model(objectives=weights).tokenize(tiny_images())
