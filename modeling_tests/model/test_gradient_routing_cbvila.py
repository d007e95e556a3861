"""Which weights each objective trains: the routing table, cell by cell.

A "no" is a gradient that is None or exactly 0 for every weight of the group; a "yes" one that is not for some weight
(not all: attention keys have biases that no loss sees).
"""

import pytest
import torch
from tiny import pretraining_model, tiny_pairs

TERMS = ("pixel", "codebook", "commitment", "mim", "itm", "mlm", "itc")
GROUPS = {
    "vit": ("cbvila.vision_model.",),
    "text": ("cbvila.text_model.",),
    "fusion": ("cbvila.fusion_model.",),
    "in_proj": ("cbvila.codebook.in_proj.",),
    "out_proj": ("cbvila.codebook.out_proj.",),
    "positions": ("cbvila.visual_queries.position_embeddings",),
    "mask": ("cbvila.visual_queries.mask_token",),
    "codes": ("cbvila.codebook.codes",),
    "keys": ("cbvila.text_key_projection.",),
    "queries": ("cbvila.visual_queries.projection.", "cbvila.visual_queries.layernorm.", "cbvila.visual_queries.cls"),
    "pixel_head": ("pixel_head.",),
    "mim_head": ("mim_head.",),
    "itm_head": ("itm_head.",),
    "mlm_head": ("mlm_head.dense.", "mlm_head.layernorm.", "mlm_head.decoder.bias"),
    "contrast": ("cbvila.vision_projection.", "cbvila.text_projection.", "cbvila.logit_scale"),
}
# The path from visual words through the fusion encoder to a head, which pixel and MIM share.
WORDS = {"out_proj", "positions", "queries", "keys", "text", "fusion"}
ROUTES = {
    "recommended": {
        "pixel": {"vit", "in_proj", "pixel_head"} | WORDS,
        "commitment": {"vit", "in_proj"},
        "mim": {"mask", "mim_head"} | WORDS,
        "itm": {"vit", "text", "fusion", "itm_head"},
        "mlm": {"vit", "text", "fusion", "mlm_head"},
        "itc": {"vit", "text", "contrast"},
    },
    "paper": {
        "pixel": {"vit", "codes", "mask", "pixel_head"} | WORDS - {"out_proj"},
        "codebook": {"codes"},
        "commitment": {"vit"},
        "mim": {"vit", "mask", "mim_head"} | WORDS - {"out_proj"},
        "itm": {"vit", "text", "fusion", "itm_head"},
        "mlm": {"vit", "text", "fusion", "mlm_head"},
    },
}
VARIANTS = {
    "recommended": {},
    "paper": {"preset": "paper"},
    "rotation": {"quantizer_gradient": "rotation"},
    "tied": {"mim_head": "tied"},
    "straight-through, by loss": {"preset": "paper", "quantizer_gradient": "straight_through"},
    "rotation, by loss": {"preset": "paper", "quantizer_gradient": "rotation"},
    "paper, tied": {"preset": "paper", "mim_head": "tied"},
}


def routes(variant):
    expected = ROUTES[VARIANTS[variant].get("preset", "recommended")]
    if "by loss" in variant:  # only gumbel lets the pixel loss move the codes
        expected = expected | {"pixel": expected["pixel"] - {"codes"}}
    return expected


def groups_with_gradient(model):
    reached = set()
    for group, prefixes in GROUPS.items():
        gradients = [p.grad for name, p in model.named_parameters() if name.startswith(prefixes)]
        if any(gradient is not None and gradient.abs().max() > 0 for gradient in gradients):
            assert max(g.abs().max() for g in gradients if g is not None) > 1e-7, group
            reached.add(group)
    return reached


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request):
    return request.param, pretraining_model(**VARIANTS[request.param]).train()


@pytest.mark.parametrize("term", TERMS)
def test_routing(variant, term):
    name, model = variant
    model.zero_grad()
    weights = dict.fromkeys(TERMS, 0.0) | {term: 1.0}
    output = model(**tiny_pairs(), loss_weights=weights)
    expected = routes(name).get(term)
    if expected is None:
        assert output.loss is None and not list(output.losses)
        return
    assert list(output.losses) == [term]
    output.loss.backward()
    assert groups_with_gradient(model) == expected


def test_the_groups_are_all_there_is(variant):
    _, model = variant
    prefixes = tuple(prefix for group in GROUPS.values() for prefix in group)
    others = {name for name, _ in model.named_parameters() if not name.startswith(prefixes)}
    assert others == set()
    assert ("cbvila.codebook.codes" in dict(model.named_parameters())) == (model.config.codebook_update == "loss")


def test_text_is_trained_by_both_its_passes():
    """MLM reads the text encoder on masked ids; with equal ids in both places only the word [MASK] differs."""
    model, batch = pretraining_model().train(), tiny_pairs()
    output = model(**batch, loss_weights=dict.fromkeys(TERMS, 0.0) | {"mlm": 1.0})
    output.loss.backward()
    words = model.cbvila.text_model.embeddings.word_embeddings.weight.grad
    assert words[4].abs().max() > 0, "[MASK] is only in the corrupted text"


def test_mim_targets_are_not_trained():
    """Moving a masked token's latent changes its target, and no gradient may say so, with gradients to the ViT on."""
    model, batch = pretraining_model(preset="paper").train(), tiny_pairs()
    tokens = []
    hook = model.cbvila.vision_model.register_forward_hook(
        lambda module, inputs, output: (output.last_hidden_state.retain_grad(), tokens.append(output))[0]
    )
    model(**batch, loss_weights=dict.fromkeys(TERMS, 0.0) | {"mim": 1.0}).loss.backward()
    hook.remove()
    gradient = tokens[0].last_hidden_state.grad[:, 1:]
    masked = batch["bool_masked_pos"]
    assert torch.equal(gradient[masked], torch.zeros_like(gradient[masked]))
    assert (gradient[~masked].abs().amax(-1) > 0).all()
