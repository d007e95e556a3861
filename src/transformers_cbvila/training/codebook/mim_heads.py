"""Reinitialises linear heads that score codes by index, once k-means has replaced the codes."""

from typing import Any

import torch
from torch import Tensor, nn

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
        if head.weight.requires_grad:
            _initialise(head.weight, head.bias, model.config.initializer_range, generator_for(seed, step, len(reset)))
            reset.append(name)
    return reset


def _initialise(weight: nn.Parameter, bias: Tensor, std: float, generator: torch.Generator) -> None:
    """Initialises a head as in a new model, with the same random numbers on all processes."""
    set_weight(weight, torch.randn(weight.shape, generator=generator) * std)
    bias.zero_()
