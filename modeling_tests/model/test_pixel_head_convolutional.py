"""The convolutional pixel head paints quantized tokens alone, and leaves the fusion encoder to masked modelling."""

import pytest
import torch
import torch.nn.functional as F
from gradient_groups import GROUPS
from tiny import (
    CODES,
    PATCH,
    PATCHES,
    SIDE,
    build,
    pretraining_model,
    tiny_config,
    tiny_images,
    tiny_pairs,
    tiny_texts,
)

from transformers_cbvila import CBViLAForMaskedImageModeling, CBViLAForPreTraining
from transformers_cbvila.data.masking import generator_for
from transformers_cbvila.export.graphs import Drawing
from transformers_cbvila.inspection.gradient_gap import gradient_gap
from transformers_cbvila.model.losses_cbvila import patchify
from transformers_cbvila.model.pixel_head_convolutional_cbvila import CBViLAConvolutionalPixelHead

CONVOLUTIONAL = {"pixel": {"head": "convolutional", "head_layers": 2}}
GRID = (4, 6)


def head(num_layers=1, seed=0):
    torch.manual_seed(seed)
    return CBViLAConvolutionalPixelHead(5, 8, num_layers, 12).double().eval()


def test_one_block_equals_loops_over_patches():
    layer, (rows, columns) = head(), GRID
    tokens = torch.randn(2, rows * columns, 5, dtype=torch.double)
    states, (block,) = layer.embed(tokens).view(2, rows, columns, 8), layer.layers
    expected = torch.zeros(2, rows, columns, 12, dtype=torch.double)
    for row in range(rows):
        for column in range(columns):
            around = block.around.bias.repeat(2, 1)
            for down in (-1, 0, 1):
                for right in (-1, 0, 1):
                    if 0 <= row + down < rows and 0 <= column + right < columns:
                        weight = block.around.weight[:, 0, down + 1, right + 1]
                        around = around + weight * states[:, row + down, column + right]
            added = block.narrow(F.gelu(block.wide(block.norm(around))))
            expected[:, row, column] = layer.decoder(layer.norm(states[:, row, column] + added))
    torch.testing.assert_close(layer(tokens, GRID), expected.flatten(1, 2))


@pytest.mark.parametrize("num_layers", [1, 2])
def test_patches_see_as_far_as_there_are_blocks(num_layers):
    layer, tokens = head(num_layers), torch.randn(1, 49, 5, dtype=torch.double)
    changed = tokens.clone()
    changed[0, 24] += 1  # the middle of 7 x 7
    differs = (layer(tokens, (7, 7)) != layer(changed, (7, 7))).any(-1).view(7, 7)
    rows = columns = (torch.arange(7) - 3).abs() <= num_layers
    assert torch.equal(differs, rows[:, None] & columns)


def test_captions_change_drawings_of_the_fused_head_only():
    pixel_values, texts = tiny_images(), tiny_texts()
    for objectives, changes in (({}, True), (CONVOLUTIONAL, False)):
        model = pretraining_model(objectives=objectives)
        captioned, empty = (model.reconstruct(pixel_values, **given).pixel_values for given in (texts, {}))
        assert (captioned - empty).abs().max().item() > 1e-4 if changes else torch.equal(captioned, empty)


@pytest.mark.parametrize("columns", [SIDE, SIDE // 2])
def test_visual_words_alone_give_the_reconstruction(columns):
    model, pixel_values = pretraining_model(objectives=CONVOLUTIONAL), tiny_images()[..., :columns]
    model.cbvila.quantizer.tables()[0].set_codes(torch.randn(CODES, 8, generator=generator_for(3)))
    ids = model.tokenize(pixel_values, interpolate_pos_encoding=True)
    whole = model.reconstruct(pixel_values, interpolate_pos_encoding=True).pixel_values
    torch.testing.assert_close(model.detokenize(ids, grid=(SIDE // PATCH, columns // PATCH)), whole)
    quantized = model.cbvila.quantizer.indices_to_quantized(ids)
    predicted = model.pixel.head(quantized, (SIDE // PATCH, columns // PATCH))
    torch.testing.assert_close(patchify(whole, PATCH), predicted)


def trained_groups(objectives, **weights):
    """Returns the groups of weights that get a gradient if all other terms of the loss have a weight of 0."""
    model = build(CBViLAForPreTraining, tiny_config(objectives=objectives)).train()
    others = dict.fromkeys(model.config.loss_weights(), 0.0)
    model(**tiny_pairs(), loss_weights={**others, **weights}).loss.backward()
    trained = {name for name, value in model.named_parameters() if value.grad is not None and value.grad.any()}
    return {group for group, starts in GROUPS.items() if any(name.startswith(starts) for name in trained)}


@pytest.mark.parametrize("grad_to_vit", [True, False])
def test_pixels_train_neither_fusion_nor_texts(grad_to_vit):
    objectives = {"pixel": {**CONVOLUTIONAL["pixel"], "grad_to_vit": grad_to_vit}}
    groups = trained_groups(objectives, pixel=1.0)
    assert "pixel_head" in groups and ("vit" in groups) is grad_to_vit
    assert not groups & {"text", "fusion", "keys", "queries", "positions", "mask"}
    assert {"text", "fusion"} <= trained_groups({}, pixel=1.0)


@pytest.mark.parametrize("model_class", [CBViLAForPreTraining, CBViLAForMaskedImageModeling])
def test_masked_image_modelling_is_as_without_pixels(model_class):
    pairs = {k: v for k, v in tiny_pairs().items() if k in ("pixel_values", "input_ids", "bool_masked_pos")}
    losses = []
    for pixel in (CONVOLUTIONAL["pixel"], {"weight": 0}):
        model = build(model_class, tiny_config(objectives={"pixel": pixel}))
        torch.manual_seed(0)
        for parameter in (*model.cbvila.parameters(), *model.mim.parameters()):
            torch.nn.init.normal_(parameter, std=0.1) if parameter.requires_grad else None
        losses.append(model(**pairs).losses["mim"])
    torch.testing.assert_close(*losses)


def test_reloads_draws_and_refills_hidden_patches(tmp_path):
    model, pixel_values = pretraining_model(objectives=CONVOLUTIONAL), tiny_images()
    model.save_pretrained(tmp_path)
    again = CBViLAForPreTraining.from_pretrained(tmp_path)
    assert again.config.objectives["pixel"].head_layers == 2
    masked = torch.arange(PATCHES).expand(4, -1) % 2 == 0
    first, second = (each.reconstruct(pixel_values, bool_masked_pos=masked).pixel_values for each in (model, again))
    torch.testing.assert_close(first, second)
    drawn = model.generate_images(tiny_texts()["input_ids"], num_steps=2, generator=generator_for(0))
    torch.testing.assert_close(drawn.pixel_values, model.detokenize(drawn.codebook_indices))


def test_the_exported_graph_paints_what_the_model_does():
    model, texts = pretraining_model(objectives=CONVOLUTIONAL), tiny_texts()
    ids = torch.randint(CODES, (4, PATCHES), generator=generator_for(1))
    states = model.cbvila.text_model(**texts).last_hidden_state
    nothing = torch.zeros(4, PATCHES, dtype=torch.bool)
    with torch.no_grad():
        painted = Drawing(model)(ids, nothing, states, texts["attention_mask"])["pixel_values"]
    torch.testing.assert_close(painted, model.detokenize(ids, **texts))


def test_codes_of_other_rates_are_painted_by_it():
    config = tiny_config(objectives={**CONVOLUTIONAL, "raq": {}})
    model = build(CBViLAForPreTraining, config).train()
    losses = model(**tiny_pairs()).losses
    assert losses["raq_pixel"].isfinite()
    only = dict.fromkeys(model.config.loss_weights(), 0.0) | {"raq_pixel": 1.0}
    model(**tiny_pairs(), loss_weights=only).loss.backward()
    assert model.pixel.head.decoder.weight.grad.any()
    assert not any(p.grad is not None and p.grad.any() for p in model.cbvila.fusion_model.parameters())


def test_gradient_gap_goes_through_it():
    model = pretraining_model(objectives=CONVOLUTIONAL)
    model.cbvila.quantizer.tables()[0].set_codes(torch.randn(CODES, 8, generator=generator_for(3)))
    assert gradient_gap(model, tiny_images()) == pytest.approx(gradient_gap(model, tiny_images(), **tiny_texts()))
    assert gradient_gap(model, tiny_images()) > 0


def test_a_head_has_three_blocks_unless_told_otherwise():
    for more, number in (({}, 3), ({"head_layers": 1}, 1)):
        model = pretraining_model(objectives={"pixel": {"head": "convolutional", **more}})
        assert len(model.pixel.head.layers) == number


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "convolutional", "on": "both"}, "reads the tokens of all patches, and on='both' hides some"),
        ({"head": "convolutional", "head_layers": 0}, r"head_layers=0.*at least 1"),
        ({"head_layers": 3}, r"head_layers=3 changes nothing of head='linear'"),
        ({"head": "convolution"}, r"head='convolution'"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(objectives={"pixel": options})
