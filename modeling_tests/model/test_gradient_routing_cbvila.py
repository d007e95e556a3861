"""Which weights each objective trains, cell by cell of the routing table.

A "no" is a gradient that is None or exactly 0 for every weight of the group; a "yes" one that is not for some weight
(not all: attention keys have biases that no loss sees).
"""

from functools import cache

import pytest
import torch
from gradient_groups import GROUPS
from tiny import build, pretraining_model, tiny_pairs

from transformers_cbvila import CBViLAForImageTextRetrieval
from transformers_cbvila.model.momentum_cbvila import MomentumPairs, MomentumTargets

TERMS = ("pixel", "codebook", "commitment", "mim", "itm", "mlm", "itc", "mim_cls_bag")
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
TO_VIT = {"vit", "in_proj"}
MIM_WITH_BAG = {"mim_cls_bag": {"mask", "bag_head"} | WORDS}
# Options: the fields, and the routes that are then other than their preset's.
VARIANTS = {
    "recommended": ({}, {}),
    "paper": ({"preset": "paper"}, {}),
    "rotation": ({"quantizer_gradient": "rotation"}, {}),
    "tied": ({"mim_head": "tied"}, {}),
    "paper, straight-through": (
        {"preset": "paper", "quantizer_gradient": "straight_through"},
        {"pixel": ROUTES["paper"]["pixel"] - {"codes"}},  # only gumbel lets the pixel loss move the codes
    ),
    "paper, rotation": (
        {"preset": "paper", "quantizer_gradient": "rotation"},
        {"pixel": ROUTES["paper"]["pixel"] - {"codes"}},
    ),
    "paper, tied": ({"preset": "paper", "mim_head": "tied"}, {}),
    "gumbel over a moving average": ({"quantizer_gradient": "gumbel"}, {}),
    "MIM to the image encoder": ({"mim_grad_to_vit": True}, {"mim": ROUTES["recommended"]["mim"] | TO_VIT}),
    "paper, MIM not to the image encoder": (
        {"preset": "paper", "mim_grad_to_vit": False},
        {"mim": ROUTES["paper"]["mim"] - {"vit"}},
    ),
    "pixel not to the image encoder": (
        {"pixel_grad_to_vit": False},
        {"pixel": ROUTES["recommended"]["pixel"] - TO_VIT},
    ),
    "paper, pixel not to the image encoder": (
        {"preset": "paper", "pixel_grad_to_vit": False},
        {"pixel": ROUTES["paper"]["pixel"] - {"vit"}},
    ),
    "masked pixels": ({"pixel_on": "masked"}, {"pixel": ROUTES["recommended"]["pixel"] | {"mask"}}),
    "masked before the encoder": ({"mim_mask_stage": "pre"}, {}),
    "paper, masked before the encoder": (
        {"preset": "paper", "mim_mask_stage": "pre"},
        {term: ROUTES["paper"][term] | {"patch_mask"} for term in ("pixel", "mim")},
    ),
    "no positions": (
        {"fusion_visual_pos": "none"},
        {term: ROUTES["recommended"][term] - {"positions"} for term in ("pixel", "mim")},
    ),
    "class token of the encoder, cut": (
        {"fusion_visual_cls": "vit", "pixel_grad_to_vit": False},
        {"pixel": ROUTES["recommended"]["pixel"] - TO_VIT},
    ),
    "no class token": ({"fusion_visual_cls": "none"}, {}),
    "bag of words": ({"mim_cls_bag_weight": 1.0}, MIM_WITH_BAG),
    "texts see words": (
        {"itm_kv": "quantized"},
        {term: ROUTES["recommended"][term] | {"in_proj", "out_proj"} for term in ("itm", "mlm")},
    ),
    "paper, texts see words": (
        {"preset": "paper", "itm_kv": "both"},
        {term: ROUTES["paper"][term] | {"codes"} for term in ("itm", "mlm")},
    ),
    "contrast not to the encoders": (
        {"objectives": {"itc": {"grad_to_encoders": False}}},
        {"itc": {"contrast"}},
    ),
    "other likelihood": ({"pixel_likelihood": "laplace", "pixel_reduction": "sum_patch", "pixel_sigma": 2.0}, {}),
}

# The table of both presets, cell by cell: + is reached, - is not, . is not there. An EMA codebook is no parameter.
COLUMNS = ("vit", "text", "fusion", "in_proj", "out_proj", "positions", "mask", "codes", "own head", "contrast")
TABLE = {
    "recommended": {
        "pixel": "+ + + + + + - . + -",
        "commitment": "+ - - + - - - . - -",
        "mim": "- + + - + + + . + -",
        "itm": "+ + + - - - - . + -",
        "mlm": "+ + + - - - - . + -",
        "itc": "+ + - - - - - . - +",
    },
    "paper": {
        "pixel": "+ + + . . + + + + .",
        "codebook": "- - - . . - - + - .",
        "commitment": "+ - - . . - - - - .",
        "mim": "+ + + . . + + - + .",
        "itm": "+ + + . . - - - + .",
        "mlm": "+ + + . . - - - + .",
    },
}
CELLS = [
    (preset, term, column, cell)
    for preset, rows in TABLE.items()
    for term, cells in rows.items()
    for column, cell in zip(COLUMNS, cells.split(), strict=True)
]


def routes(variant):
    fields, changes = VARIANTS[variant]
    return ROUTES[fields.get("preset", "recommended")] | changes


@cache
def model_of(variant):
    return pretraining_model(**VARIANTS[variant][0]).train()


def run_alone(model, term):
    """The output with one term on, its gradients in the model."""
    model.zero_grad()
    output = model(**tiny_pairs(), loss_weights=dict.fromkeys(TERMS, 0.0) | {term: 1.0})
    if output.loss is not None:
        output.loss.backward()
    return output


@cache
def gradients(preset, term):
    """The largest gradient in each group: None if the group is not there, 0.0 if no gradient reaches it."""
    model = model_of(preset)
    run_alone(model, term)
    largest = {}
    for group, prefixes in GROUPS.items():
        found = [p for name, p in model.named_parameters() if name.startswith(prefixes)]
        reached = [p.grad.abs().max().item() for p in found if p.grad is not None]
        largest[group] = max(reached, default=0.0) if found else None
    return largest


@pytest.mark.parametrize("preset, term, column, cell", CELLS, ids=[" ".join(cell[:3]) for cell in CELLS])
def test_gradient_routing_table_cells(preset, term, column, cell):
    largest = gradients(preset, term)
    if column == "own head":
        heads = {group: value for group, value in largest.items() if group.endswith("_head")}
        own = heads.pop(f"{term}_head", None)
        assert all(not value for value in heads.values()), "the heads of the other terms"
        assert (own is not None and own > 1e-7) == (cell == "+")
    elif cell == ".":
        assert largest[column] is None
    elif cell == "+":
        assert largest[column] > 1e-7
    else:
        assert largest[column] == 0.0


def test_ema_codes_have_no_gradient():
    codes = model_of("recommended").cbvila.quantizer.table.codes
    assert not codes.requires_grad and not isinstance(codes, torch.nn.Parameter)


def groups_with_gradient(model):
    reached = set()
    for group, prefixes in GROUPS.items():
        gradients = [p.grad for name, p in model.named_parameters() if name.startswith(prefixes)]
        if any(gradient is not None and gradient.abs().max() > 0 for gradient in gradients):
            assert max(g.abs().max() for g in gradients if g is not None) > 1e-7, group
            reached.add(group)
    return reached


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("term", TERMS)
def test_gradient_routing_of_every_group(variant, term):
    """Every group of weights, those of no column of the table included."""
    model, expected = model_of(variant), routes(variant).get(term)
    if term not in model.objectives:
        assert expected is None
        with pytest.raises(ValueError, match=f"asks for {term}, but this model was built without"):
            run_alone(model, term)
        return
    output = run_alone(model, term)
    if expected is None:  # codes that are moving averages have no loss
        assert output.loss is None and not list(output.losses)
        return
    assert list(output.losses) == [term]
    assert groups_with_gradient(model) == expected


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradient_routing_groups_cover_all_weights(variant):
    model = model_of(variant)
    prefixes = tuple(prefix for group in GROUPS.values() for prefix in group)
    others = {name for name, _ in model.named_parameters() if not name.startswith(prefixes)}
    assert others == set()
    assert ("cbvila.quantizer.table.codes" in dict(model.named_parameters())) == (
        model.config.quantizer_config.update == "loss"
    )


@pytest.mark.parametrize("needs_momentum", [False, True])
def test_contrast_without_gradient_to_encoders_changes_no_value(needs_momentum):
    """The loss and the gradients of the projections are those of contrast that trains the encoders."""
    batch, found = tiny_pairs(), []
    for stopped in (False, True):
        model = pretraining_model(objectives={"itc": {"grad_to_encoders": not stopped}}).train()
        momentum = None
        if needs_momentum:
            embeds = model(**batch)
            rows = torch.arange(4)
            pairs = MomentumPairs(
                embeds.image_embeds.detach(), embeds.text_embeds.detach(), rows, rows, rows.new_empty(4, 0)
            )
            momentum = MomentumTargets(0.4, pairs)
        weights = dict.fromkeys(TERMS, 0.0) | {"itc": 1.0}
        loss = model(**batch, loss_weights=weights, momentum=momentum).loss
        loss.backward()
        base = model.cbvila
        gradients = [p.grad for part in (base.vision_projection, base.text_projection) for p in part.parameters()]
        found.append([loss.detach(), base.logit_scale.grad, *gradients])
        assert groups_with_gradient(model) == ({"contrast"} if stopped else {"vit", "text", "contrast"})
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_fine_tuning_for_retrieval_follows_grad_to_encoders():
    model = build(CBViLAForImageTextRetrieval, objectives={"itc": {"grad_to_encoders": False}}).train()
    batch = tiny_pairs()
    inputs = {name: batch[name] for name in ("pixel_values", "input_ids", "attention_mask")}
    output = model(**inputs, return_loss=True)
    output.itc_loss.backward()
    assert groups_with_gradient(model) == {"contrast"}


def test_mlm_trains_text_encoder_through_both_passes():
    """MLM reads the text encoder on masked ids; with equal ids in both places only the word [MASK] differs."""
    model, batch = pretraining_model().train(), tiny_pairs()
    output = model(**batch, loss_weights=dict.fromkeys(TERMS, 0.0) | {"mlm": 1.0})
    output.loss.backward()
    words = model.cbvila.text_model.embeddings.word_embeddings.weight.grad
    assert words[4].abs().max() > 0, "[MASK] is only in the corrupted text"


def test_mim_targets_have_no_gradient():
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
