"""Going on from a checkpoint with another codebook: all is kept but the codes and the heads that predict them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...model.codebook_resizing_cbvila import heads_by_code
from ...model.quantizers_cbvila import build_quantizer


def has_another_codebook(old: Any, new: Any) -> bool:
    """Returns whether the weights of one configuration's quantizer do not fit the other's."""
    if not (old.has_quantizer and new.has_quantizer):
        return False
    return _shapes(lambda: build_quantizer(old)) != _shapes(lambda: build_quantizer(new))


def weights_without_codes(model: Any, config: Any) -> dict[str, Tensor]:
    """Returns the weights of a pretraining model that mean the same in a model with another codebook.

    These are all but those of its quantizer, of heads with weights for each code, and of objectives whose weights have
    another shape there.

    Args:
        model: The model.
        config: The configuration with another codebook.
    """
    other = _shapes(lambda: type(model)(config))
    dropped = ("cbvila.quantizer.", *(f"{name}." for name in heads_by_code(model)))
    return {
        name: value
        for name, value in model.state_dict().items()
        if not name.startswith(dropped)
        and not (name.startswith("objectives.") and other.get(name, value.shape) != value.shape)
    }


def _shapes(make: Callable[[], nn.Module]) -> dict[str, torch.Size]:
    """Returns the shapes of a module's weights, which are neither stored nor drawn."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return {name: value.shape for name, value in make().state_dict().items()}
