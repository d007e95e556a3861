"""Reinitialises linear heads that score codes by index, once k-means has replaced the codes."""

from typing import Any

import torch
from torch import nn

from ...data.masking import generator_for
from ..fsdp import set_weight


@torch.no_grad()
def reset_heads(model: Any, seed: int, step: int) -> list[str]:
    """Reinitialises a model's heads that have a row of weights for each code; returns their names.

    A tied head scores codes by their vectors and is kept; so is a frozen head, which could not learn.

    Args:
        model: The model.
        seed: Seed of the run.
        step: Global step, from which new weights are drawn together with the seed.
    """
    heads = {f"{name}.head": head for name, obj in model.objectives.items() for head in obj.code_weights()}
    reset: list[str] = []
    for name, head in heads.items():
        generator, std = generator_for(seed, step, len(reset)), model.config.initializer_range
        layers = [layer for layer in head.modules() if isinstance(layer, nn.Linear | nn.Embedding)]
        learning = [layer for layer in layers if layer.weight.requires_grad]
        for layer in learning:
            _initialise(layer, std, generator)
        reset += [name] * bool(learning)
    return reset


def _initialise(layer: Any, std: float, generator: torch.Generator) -> None:
    """Initialises a layer of a head as in a new model, with the same random numbers on all processes."""
    set_weight(layer.weight, torch.randn(layer.weight.shape, generator=generator) * std)
    if getattr(layer, "bias", None) is not None:
        layer.bias.zero_()
