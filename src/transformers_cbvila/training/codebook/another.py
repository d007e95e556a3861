"""Going on from a checkpoint with another codebook: all is kept but the codes and the heads that predict them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...model.codebook_resizing_cbvila import heads_by_code
from ...model.quantizers_cbvila import QUANTIZERS


def has_another_codebook(old: Any, new: Any) -> bool:
    """Returns whether the weights of one configuration's quantizer do not fit the other's."""
    if not (old.has_quantizer and new.has_quantizer):
        return False
    return _shapes(old) != _shapes(new)


def weights_without_codes(model: Any) -> dict[str, Tensor]:
    """Returns the weights of a pretraining model without those of its quantizer and of heads that predict codes."""
    dropped = ("cbvila.quantizer.", *(f"{name}." for name in heads_by_code(model)))
    return {name: value for name, value in model.state_dict().items() if not name.startswith(dropped)}


def _shapes(config: Any) -> dict[str, tuple[int, ...]]:
    with torch.random.fork_rng(devices=[]):  # the weights of the model are to be drawn as without this comparison
        quantizer = QUANTIZERS[config.quantizer_config.type](config.quantizer_config, config.vision_config.hidden_size)
    return {name: tuple(value.shape) for name, value in quantizer.state_dict().items()}
