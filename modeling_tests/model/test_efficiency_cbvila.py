"""What a training step computes, and how often: shared passes, shared keys and values, heads on masked places."""

from collections import defaultdict

import pytest
import torch
from tiny import CODES, PATCH, PATCHES, VOCABULARY, pretraining_model, tiny_config, tiny_pairs
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from transformers_cbvila.model import label_checks_cbvila

BATCH, LENGTH = 4, 7


def inputs_seen(model, names):
    """The shape of every input of the named modules in one training step, by name."""
    seen, hooks = defaultdict(list), []
    for name, module in model.named_modules():
        if any(name.endswith(ending) for ending in names):
            hooks.append(
                module.register_forward_pre_hook(
                    lambda _, args, kwargs, name=name: seen[name].append(
                        tuple((args or tuple(kwargs.values()))[0].shape)
                    ),
                    with_kwargs=True,
                )
            )
    model(**tiny_pairs(BATCH, LENGTH)).loss.backward()
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("preset, word_passes", [("recommended", 2), ("paper", 3)])
def test_training_step_runs_one_pass_per_encoder_and_fusion_direction(preset, word_passes):
    model = pretraining_model(preset=preset).train()
    seen = inputs_seen(model, ["vision_model.layers.0", "text_model.layers.0", "fusion_model.layers.0"])
    fusion = model.config.multimodal_config.hidden_size
    assert seen["cbvila.vision_model.layers.0"] == [(BATCH, 1 + PATCHES, 32)]
    assert seen["cbvila.text_model.layers.0"] == [(2 * BATCH, LENGTH, fusion)]  # as they are, and with masked tokens
    assert seen["cbvila.fusion_model.layers.0"] == [
        (4 * BATCH, LENGTH, fusion),  # ITM: true pairs, wrong images, wrong texts; MLM
        (word_passes * BATCH, 1 + PATCHES, fusion),  # pixel (twice with "both") and MIM
    ]


@pytest.mark.parametrize("preset", ["recommended", "paper"])
def test_training_step_projects_keys_and_values_once(preset):
    model = pretraining_model(preset=preset).train()
    seen = inputs_seen(model, ["crossattention.k_proj", "crossattention.v_proj"])
    assert len(seen) == 2 * model.config.multimodal_config.num_hidden_layers
    for shapes in seen.values():
        assert shapes == [(BATCH, 1 + PATCHES, 32), (BATCH, LENGTH, 32)]


def test_training_step_heads_see_masked_places_only():
    model, batch = pretraining_model().train(), tiny_pairs(BATCH, LENGTH)
    seen = inputs_seen(model, ["mlm.head", "mim.head", "pixel.head", "itm.head"])
    assert seen["objectives.mlm.head"] == [(int((batch["mlm_labels"] != -100).sum()), 24)]
    assert seen["objectives.mim.head"] == [(int(batch["bool_masked_pos"].sum()), 24)]
    assert seen["objectives.pixel.head"] == [(BATCH, PATCHES, 24)]
    assert seen["objectives.itm.head"] == [(3 * BATCH, 24)]


def layer(rows, tokens, size, inner, keys=0, key_rows=0, key_size=0):
    """Multiply-adds of a transformer layer; with `keys` keys and values, cross-attention to them as well."""
    projections = rows * tokens * (4 * size**2 + 2 * size * inner)
    attention = 2 * rows * tokens**2 * size
    cross = rows * tokens * 2 * size**2 + 2 * rows * tokens * keys * size + key_rows * keys * 2 * key_size * size
    return projections + attention + (cross if keys else 0)


def test_training_step_flops_equal_hand_count():
    """Every product of the step, at a glance: nothing is computed twice, nothing that no loss needs."""
    config = tiny_config()
    config._attn_implementation = "eager"  # torch counts no fused attention on the CPU
    model, batch = pretraining_model(config).train(), tiny_pairs(BATCH, LENGTH)
    vision, text, fusion = config.vision_config, config.text_config, config.multimodal_config
    image, words, inner, width = vision.hidden_size, text.hidden_size, text.intermediate_size, config.codebook_dim
    patches, images = BATCH * PATCHES, 1 + PATCHES  # tokens of all images, and of one with [CLS]
    masked_tokens, masked_patches = (batch["mlm_labels"] != -100).sum(), batch["bool_masked_pos"].sum()
    expected = {
        "image encoder": patches * 3 * PATCH**2 * image
        + vision.num_hidden_layers * layer(BATCH, images, image, vision.intermediate_size),
        "text encoder": text.num_hidden_layers * layer(2 * BATCH, LENGTH, words, inner),
        "contrast": BATCH * config.projection_dim * (image + words + BATCH),
        "into the codebook": patches * (image**2 + image * width + width * CODES),
        "out of it": 2 * patches * width * image,  # for the pixel loss and, without gradient to the codes, for MIM
        "into the fusion encoder": 2 * patches * image * words + BATCH * LENGTH * words * image,
        "texts ask images": fusion.num_hidden_layers
        * layer(4 * BATCH, LENGTH, words, inner, keys=images, key_rows=BATCH, key_size=image),
        "images ask texts": fusion.num_hidden_layers
        * layer(2 * BATCH, images, words, inner, keys=LENGTH, key_rows=BATCH, key_size=image),
        "ITM": 3 * BATCH * words * 2,
        "MLM": masked_tokens * (words**2 + words * VOCABULARY),
        "MIM": masked_patches * words * CODES,
        "pixels": patches * words * 3 * PATCH**2,
    }
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        model(**batch)
    assert counter.get_total_flops() == 2 * int(sum(expected.values()))


class Waits(TorchDispatchMode):
    """Operations whose result has a size, or is a number, that the host must learn from a device."""

    KNOWN = ("aten.nonzero", "aten._local_scalar_dense", "aten.masked_select", "aten._unique", "aten.bincount")

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name, indices = str(function), args[1] if len(args) > 1 and isinstance(args[1], (list, tuple)) else ()
        by_mask = "index" in name and any(
            getattr(index, "dtype", None) in (torch.bool, torch.uint8) for index in indices
        )
        if by_mask or name.startswith(self.KNOWN):
            self.seen.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("preset", ["recommended", "paper"])
def test_training_step_synchronizes_once_per_masked_objective(preset, monkeypatch):
    """Forward and backward: where tokens are masked (MLM) and where patches are (MIM)."""
    # labels are looked at on the CPU, and of a model on an accelerator with its first batch
    monkeypatch.setattr(label_checks_cbvila, "may_read_values", lambda *_: False)
    model, batch = pretraining_model(preset=preset).train(), tiny_pairs(BATCH, LENGTH)
    del batch["attention_mask"]  # transformers asks of it, once per encoder, whether there is padding at all
    with Waits() as waits:
        model(**batch, negative_seed=torch.tensor([3])).loss.backward()
    assert waits.seen == ["aten.nonzero.default"] * 2
    with Waits() as waits:
        torch.zeros(2, requires_grad=True)[torch.tensor([True, False])].sum().backward()
    assert len(waits.seen) == 2, "what it was: once on the way, and once on the way back"
