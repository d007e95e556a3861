"""Going on from a checkpoint with another codebook: all is kept but the codes and the heads that predict them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...model.codebook_resizing_cbvila import heads_by_code
from ...model.quantizers_cbvila import build_quantizer


def has_another_codebook(old: Any, new: Any) -> bool:
    """Returns whether the weights of one configuration's quantizer do not fit the other's."""
    if not (old.has_quantizer and new.has_quantizer):
        return False
    return _shapes(old) != _shapes(new)


def weights_without_codes(model: Any, config: Any) -> dict[str, Tensor]:
    """Returns the weights of a pretraining model that mean the same in a model with another codebook.

    These are all but those of its quantizer, of heads with weights for each code, and of objectives whose weights have
    another shape there.

    Args:
        model: The model.
        config: The configuration with another codebook.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        other = {name: value.shape for name, value in type(model)(config).state_dict().items()}
    dropped = ("cbvila.quantizer.", *(f"{name}." for name in heads_by_code(model)))
    return {
        name: value
        for name, value in model.state_dict().items()
        if not name.startswith(dropped)
        and not (name.startswith("objectives.") and other.get(name, value.shape) != value.shape)
    }


def _shapes(config: Any) -> dict[str, tuple[int, ...]]:
    with torch.random.fork_rng(devices=[]):  # the weights of the model are to be drawn as without this comparison
        weights = build_quantizer(config).state_dict()
    return {name: tuple(value.shape) for name, value in weights.items()}
