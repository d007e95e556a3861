"""Linear heads that score codes by index: what they have learned is of no use once k-means has moved the codes."""

from typing import Any

import torch
from torch import Tensor, nn

from ..data.masking import generator_for
from .sharding import set_weight


@torch.no_grad()
def forget_codes(model: Any, seed: int, step: int) -> list[str]:
    """Gives a model's heads that have a row of weights for each code random weights again; returns their names.

    A tied head scores codes by their vectors, and stays; so does a head that is frozen, which could not learn.
    """
    heads = {"mim_head": model.mim_head} if model.config.mim_head != "tied" else {}
    if model.has_bag_head:
        heads["mim_cls_head"] = model.mim_cls_head
    begun: list[str] = []
    for name, head in heads.items():
        if head.weight.requires_grad:
            _begin(head.weight, head.bias, model.config.initializer_range, generator_for(seed, step, len(begun)))
            begun.append(name)
    return begun


def _begin(weight: nn.Parameter, bias: Tensor, std: float, generator: torch.Generator) -> None:
    """As a new model of this configuration begins, by draws that are the same on all processes."""
    set_weight(weight, torch.randn(weight.shape, generator=generator) * std)
    bias.zero_()
