"""Options beyond the paper: each does what it says, and nothing else.

Which gradients an option lets through is in test_gradient_routing_cbvila.py, losses by hand in test_losses_cbvila.py.
"""

import pytest
import torch
import torch.nn.functional as F
from tiny import CLS, CODES, PAD, PATCH, PATCHES, SEP, build, pretraining_model, tiny_pairs
from tiny_heads import assert_close, batch_for

from transformers_cbvila import (
    CBViLAForImageTextRetrieval,
    CBViLAForMaskedImageModeling,
    CBViLAForPreTraining,
    CBViLAForVisualEntailment,
)
from transformers_cbvila.model.losses_cbvila import bag_loss, patchify, unpatchify

TERMS = ("pixel", "codebook", "commitment", "mim", "itm", "mlm", "itc", "mim_cls_bag")
BOTH_HEADS = [CBViLAForPreTraining, CBViLAForMaskedImageModeling]


def off_but(*terms):
    return {term: float(term in terms) for term in TERMS}


def ask(model, batch, *terms):
    with torch.no_grad():
        return model(**batch, loss_weights=off_but(*terms))


def names(**fields):
    return set(pretraining_model(**fields).state_dict())


def with_other_hidden_patches(batch):
    """The batch with noise where patches are hidden."""
    patches = patchify(batch["pixel_values"], PATCH)
    noise = torch.randn(patches.shape, generator=torch.Generator().manual_seed(1))
    patches = torch.where(batch["bool_masked_pos"].unsqueeze(-1), noise, patches)
    side = batch["pixel_values"].shape[-1]
    return batch | {"pixel_values": unpatchify(patches, PATCH, side, side)}


def test_options_add_weights_when_chosen_only():
    default = names()
    assert names(mim_mask_stage="pre") - default == {"cbvila.patch_mask_token"}
    assert names(mim_cls_bag_weight=1.0) - default == {
        "objectives.mim_cls_bag.head.weight",
        "objectives.mim_cls_bag.head.bias",
    }
    assert default - names(fusion_visual_pos="none") == {"cbvila.visual_queries.position_embeddings"}
    for source in ("vit", "none"):
        assert default - names(fusion_visual_cls=source) == {"cbvila.visual_queries.cls_token"}
    others = {"itm_kv": "both", "pixel_likelihood": "laplace", "pixel_reduction": "sum_patch", "pixel_sigma": 2.0}
    assert names(**others, pixel_on="both") == names(pixel_grad_to_vit=False) == default


# A01: masks before or after the image encoder


@pytest.mark.parametrize("pixel_on", ["all", "both"])
def test_mim_mask_stage_pre_hides_pixels_from_the_encoder(pixel_on):
    """With the encoder's class token among the queries, which tells more of the image than a few codes do."""
    batch = tiny_pairs()
    other = with_other_hidden_patches(batch)
    for stage, blind in (("pre", True), ("post", False)):
        model = pretraining_model(mim_mask_stage=stage, pixel_on=pixel_on, fusion_visual_cls="vit")
        logits = [ask(model, inputs, "mim", "pixel").mim_logits for inputs in (batch, other)]
        assert torch.equal(*logits) == blind


@pytest.mark.parametrize("stage", ["pre", "post"])
def test_pixel_on_masked_sees_what_mim_sees(stage):
    batch = tiny_pairs()
    model = pretraining_model(mim_mask_stage=stage, pixel_on="masked", fusion_visual_cls="vit")
    outputs = [ask(model, inputs, "pixel") for inputs in (batch, with_other_hidden_patches(batch))]
    assert torch.equal(outputs[0].pixel_predictions, outputs[1].pixel_predictions) == (stage == "pre")


def test_masked_image_modeling_respects_mim_mask_stage():
    batch = batch_for(CBViLAForMaskedImageModeling)
    other = with_other_hidden_patches(batch)
    for stage, blind in (("pre", True), ("post", False)):
        model = build(CBViLAForMaskedImageModeling, mim_mask_stage=stage, fusion_visual_cls="vit")
        with torch.no_grad():
            outputs = [model(**inputs) for inputs in (batch, other)]
        assert torch.equal(outputs[0].logits, outputs[1].logits) == blind
        assert torch.equal(outputs[0].reconstruction, outputs[1].reconstruction) == blind


def test_mim_mask_stage_pre_targets_are_of_the_whole_image():
    model, batch = pretraining_model(mim_mask_stage="pre"), tiny_pairs()
    output, hidden = ask(model, batch, "mim"), batch["bool_masked_pos"]
    with torch.no_grad():
        tokens = model.cbvila.vision_model(batch["pixel_values"]).last_hidden_state[:, 1:]
        targets = model.cbvila.quantizer(tokens).indices
        seen = model.cbvila.encode_visible_patches(batch["pixel_values"], hidden).last_hidden_state[:, 1:]
    torch.testing.assert_close(output.losses["mim"], F.cross_entropy(output.mim_logits, targets[hidden]))
    assert not torch.equal(model.cbvila.quantizer(seen).indices, targets)


def test_mim_mask_stage_pre_encodes_twice_and_counts_once():
    model, batch = pretraining_model(mim_mask_stage="pre").train(), tiny_pairs()
    looks = []
    model.cbvila.vision_model.register_forward_hook(lambda *_: looks.append(1))
    model(**batch)
    assert len(looks) == 2 and model.cbvila.quantizer.table.pending_counts.sum() == 4 * PATCHES
    model(**batch, loss_weights={"mim": 0.0})
    assert len(looks) == 3, "in burn-in one look is enough"


def test_patch_mask_token_learns_with_mim():
    model, batch = pretraining_model(mim_mask_stage="pre", mim_grad_to_vit=True).train(), tiny_pairs()
    model(**batch, loss_weights=off_but("mim")).loss.backward()
    assert model.cbvila.patch_mask_token.grad.abs().max() > 1e-7
    assert 0.05 < model.cbvila.patch_mask_token.std() < 0.2, "initialised like other tokens"


def test_vision_model_needs_masked_patches_and_mask_token():
    model, batch = pretraining_model(), tiny_pairs()
    with pytest.raises(ValueError, match="both masked_patches and mask_token"):
        model.cbvila.vision_model(batch["pixel_values"], masked_patches=batch["bool_masked_pos"])


# A03 and A09: positions and class token of the questions


@pytest.mark.parametrize("positions", ["learned", "none"])
def test_fusion_visual_pos_distinguishes_hidden_patches(positions):
    model, batch = pretraining_model(fusion_visual_pos=positions), tiny_pairs()
    batch["bool_masked_pos"] = torch.ones(4, PATCHES, dtype=torch.bool)
    logits = ask(model, batch, "mim").mim_logits.view(4, PATCHES, CODES)
    same = torch.allclose(logits, logits[:, :1].expand_as(logits), atol=1e-5)
    assert same == (positions == "none")


@pytest.mark.parametrize("source, first", [("learned", 1), ("vit", 1), ("none", 0)])
def test_fusion_visual_cls_chooses_the_first_query(source, first):
    model, batch = pretraining_model(fusion_visual_cls=source), tiny_pairs()
    words, cls, other = torch.randn(4, PATCHES, 32), torch.randn(4, 32), torch.randn(4, 32)
    queries = model.cbvila.visual_queries(words, (4, 4), None, cls)
    assert queries.shape[1] == first + PATCHES
    changed = model.cbvila.visual_queries(words, (4, 4), None, other)
    assert torch.equal(queries[:, first:], changed[:, first:])
    assert torch.equal(queries, changed) == (source != "vit")
    default = pretraining_model()
    default.load_state_dict(model.state_dict(), strict=False)
    torch.testing.assert_close(queries[:, first:], default.cbvila.visual_queries(words, (4, 4))[:, 1:])
    assert ask(model, batch, "pixel").pixel_predictions.shape[:2] == (4, PATCHES)


def test_fusion_visual_cls_vit_needs_image_cls():
    with pytest.raises(ValueError, match="'vit'.*image_cls"):
        pretraining_model(fusion_visual_cls="vit").cbvila.visual_queries(torch.randn(1, PATCHES, 32), (4, 4))


# A08: which words there are, from the query [CLS]


def test_bag_loss_is_soft_cross_entropy_with_the_histogram():
    logits, indices = torch.randn(2, 5), torch.tensor([[0, 1, 1, 4], [3, 3, 2, 0]])
    mask = torch.tensor([[True, True, True, False], [True, True, False, True]])
    expected = []
    for row in range(2):
        histogram = torch.bincount(indices[row][mask[row]], minlength=5) / 3
        expected.append(-(histogram * logits[row].log_softmax(-1)).sum())
    torch.testing.assert_close(bag_loss(logits, indices, mask), sum(expected) / 2)
    assert bag_loss(logits, indices, torch.zeros_like(mask)) == 0


@pytest.mark.parametrize("head", BOTH_HEADS)
def test_mim_cls_bag_adds_a_term(head):
    batch = batch_for(head)
    with torch.no_grad():
        without, model = build(head)(**batch), build(head, mim_cls_bag_weight=0.5)
        model.load_state_dict(build(head).state_dict(), strict=False)
        output = model(**batch)
    assert set(output.losses) - set(without.losses) == {"mim_cls_bag"}
    assert output.losses["mim_cls_bag"].item() == pytest.approx(torch.tensor(CODES).log().item(), abs=1.0)
    torch.testing.assert_close(output.loss, without.loss + 0.5 * output.losses["mim_cls_bag"])


# A10: what texts see of an image


@pytest.mark.parametrize("keys, count", [("continuous", 1 + PATCHES), ("quantized", 1 + PATCHES), ("both", 34)])
def test_itm_kv_chooses_keys(keys, count):
    model, batch = pretraining_model(itm_kv=keys), tiny_pairs()
    with torch.no_grad():
        image = model.cbvila.vision_model(batch["pixel_values"]).last_hidden_state
        seen = model.cbvila.image_states_for_text(image)
        quantizer = model.cbvila.quantizer
        words = quantizer.indices_to_quantized(quantizer(image[:, 1:]).indices)
    parts = {"continuous": [image], "quantized": [image[:, :1], words], "both": [image, image[:, :1], words]}
    assert seen.shape[1] == count
    torch.testing.assert_close(seen, torch.cat(parts[keys], dim=1))


@pytest.mark.parametrize("keys", ["quantized", "both"])
def test_itm_kv_of_pretraining_is_used_by_heads(keys, tmp_path):
    """A head loaded from pretraining brings the codebook along, and matches pairs just as in pretraining."""
    model, batch = pretraining_model(itm_kv=keys), batch_for(CBViLAForImageTextRetrieval)
    batch.pop("return_loss")
    model.save_pretrained(tmp_path)
    retrieval, info = CBViLAForImageTextRetrieval.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    with torch.no_grad():
        expected = model(**batch).itm_logits[:4]
        torch.testing.assert_close(retrieval.eval()(**batch).itm_logits, expected, atol=1e-5, rtol=1e-5)
    entailment = build(CBViLAForVisualEntailment, itm_kv=keys)
    assert entailment(**batch_for(CBViLAForVisualEntailment)).loss.isfinite()


def test_itm_kv_both_counts_tokens_once():
    model = pretraining_model(itm_kv="both").train()
    model(**tiny_pairs())
    assert model.cbvila.quantizer.table.pending_counts.sum() == 4 * PATCHES


# A12 and A25: the likelihood of pixels


@pytest.mark.parametrize("head", BOTH_HEADS)
def test_pixel_likelihood_is_respected(head):
    batch = batch_for(head)

    def pixel(**fields):
        with torch.no_grad():
            return build(head, **fields)(**batch).losses["pixel"]

    default, laplace = pixel(), pixel(pixel_likelihood="laplace")
    pixels = 3 * PATCH**2
    torch.testing.assert_close(pixel(pixel_reduction="sum_patch"), default * pixels)
    torch.testing.assert_close(pixel(pixel_sigma=0.5), default * 2)
    torch.testing.assert_close(pixel(pixel_sigma=0.5, pixel_likelihood="laplace"), laplace * 2)
    assert 0 < laplace != default


# Captions that are dropped


def test_caption_dropped_uses_an_empty_caption():
    model, batch = pretraining_model(), tiny_pairs()
    dropped = torch.tensor([True, False, True, False])
    empty = torch.full_like(batch["input_ids"], PAD)
    empty[:, 0], empty[:, 1] = CLS, SEP
    mask = (torch.arange(7) < 2).long().expand(4, 7)
    full = ask(model, batch, "pixel", "mim", "itm", "mlm")
    output = ask(model, batch | {"caption_dropped": dropped}, "pixel", "mim", "itm", "mlm")
    none = ask(model, batch | {"input_ids": empty, "attention_mask": mask}, "pixel", "mim")
    for name in ("pixel_predictions", "mim_logits"):
        rows = [getattr(result, name).view(4, -1) for result in (output, none, full)]
        torch.testing.assert_close(rows[0][dropped], rows[1][dropped], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(rows[0][~dropped], rows[2][~dropped], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(rows[0][dropped], rows[2][dropped], atol=1e-3)
    for term in ("itm", "mlm"):
        assert torch.equal(output.losses[term], full.losses[term])


def test_caption_dropped_without_attention_mask():
    model, batch = pretraining_model(), tiny_pairs(padding=(0,))
    dropped = {"caption_dropped": torch.tensor([True, False, False, False])}
    expected = ask(model, batch | dropped, "pixel").losses["pixel"]
    batch.pop("attention_mask")
    torch.testing.assert_close(ask(model, batch | dropped, "pixel").losses["pixel"], expected)
    with pytest.raises(ValueError, match=r"caption_dropped.*\(3,\).*4"):
        model(**batch, caption_dropped=torch.ones(3, dtype=torch.bool))


# All of it as one graph

EVERYTHING = {
    "mim_mask_stage": "pre",
    "fusion_visual_cls": "vit",
    "fusion_visual_pos": "none",
    "mim_cls_bag_weight": 1.0,
    "itm_kv": "both",
    "pixel_on": "both",
    "pixel_likelihood": "laplace",
    "pixel_reduction": "sum_patch",
    "pixel_sigma": 1.0,
}


@pytest.mark.slow
@pytest.mark.parametrize("head", BOTH_HEADS)
def test_options_compile_and_export(head):
    model, batch = build(head, **EVERYTHING), batch_for(head)
    if head is CBViLAForPreTraining:
        batch["caption_dropped"] = torch.tensor([True, False, True, False])
    with torch.no_grad():
        expected = model(**batch)
        torch._dynamo.reset()
        assert_close(torch.compile(model, backend="eager", fullgraph=True)(**batch), expected, atol=1e-4)
        program = torch.export.export(model, (), batch, strict=False)
        assert_close(program.module()(**batch), expected, atol=1e-4)


@pytest.mark.parametrize("head", BOTH_HEADS)
def test_options_are_saved_and_keep_double_precision(head, tmp_path):
    model, batch = build(head, **EVERYTHING), batch_for(head)
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        assert_close(head.from_pretrained(tmp_path).eval()(**batch), model(**batch), atol=0)
        batch = {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}
        assert {loss.dtype for loss in model.double()(**batch).losses.values()} == {torch.float64}
