"""Models with another number of codes, from trained ones.

Shapes: K codes of the given model, K' new codes, C code width.
"""

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .code_rates_cbvila import dkm, ikm, most_used
from .nearest_codes_cbvila import nearest_codes
from .nested_options_cbvila import merge

_METHODS: dict[str, Any] = {"dkm": dkm, "ikm": ikm}


class ResizedCodes(NamedTuple):
    """Codes of another number.

    Args:
        codes: (K', C) the new codes.
        counts: (K,) how often each previous code was chosen, where codes are moving averages.
        method: How they were made: `"dkm"`, `"ikm"` or `"most_used"`.
    """

    codes: Tensor
    counts: Tensor | None
    method: str


def resizable_quantizer(model: Any) -> Any:
    """Returns the quantizer of a model.

    Raises:
        ValueError: If it has none, or one that cannot change the number of codes.
    """
    quantizer = model.cbvila.require_quantizer()
    quantizer.resized(quantizer.options, quantizer.num_codes)  # an error where the number cannot change
    return quantizer


@torch.no_grad()
def resized_codes(model: Any, number: int, method: str | None = None) -> ResizedCodes:
    """Makes codes of another number from a model's.

    Args:
        model: A model with a quantizer.
        number: K'.
        method: `"dkm"` (fewer codes, the default for them), `"ikm"` (more, the default for them) or `"most_used"`.

    Raises:
        ValueError: If it has no codebook, its quantizer cannot change the number of codes, or the method cannot make
            this number.
    """
    (table,) = resizable_quantizer(model).tables()
    codes, counts = table().detach(), table.ema_counts if table.is_moving_average else None
    method = method or ("ikm" if number > len(codes) else "dkm")
    if method == "most_used":
        if counts is None:
            raise ValueError(
                "method most_used needs moving counts, which codes learned by a loss do not have: choose dkm."
            )
        return ResizedCodes(most_used(codes, counts, number), counts, method)
    if method not in _METHODS:
        raise ValueError(f"method={method!r} must be one of {', '.join(_METHODS)} and most_used.")
    return ResizedCodes(_METHODS[method](codes, number, unit_norm=table.unit_norm), counts, method)


@torch.no_grad()
def resize_codebook(model: Any, codes: Tensor, counts: Tensor | None = None) -> tuple[Any, list[str]]:
    """Returns a copy of a model with other codes.

    Heads with weights for each code, such as a linear MIM head, take those of the nearest previous code. Objectives
    with other weights that depend on the number of codes are left out.

    Args:
        model: A model with objectives and a quantizer.
        codes: (K', C) the new codes.
        counts: (K,) how often each previous code was chosen, for moving averages; equal by default.

    Returns:
        The new model in evaluation mode, and the names of the objectives that were left out.

    Raises:
        ValueError: If its quantizer cannot change the number of codes.
    """
    quantizer = model.cbvila.quantizer
    config = copy.deepcopy(model.config)
    config.quantizer_config = type(quantizer).resized(quantizer.options, len(codes))
    (table,) = quantizer.tables()
    previous = table()
    codes = codes.to(previous)
    resized = _like(model, config)
    left_out = _unlike_objectives(model, resized)
    if left_out:
        config.objectives = merge("objectives", config.objectives, dict.fromkeys(left_out))
        resized = _like(model, config)
    nearest = nearest_codes(codes, previous)
    for name, head in heads_by_code(resized).items():
        for part, parameter in head.named_parameters():
            parameter.copy_(heads_by_code(model)[name].get_parameter(part)[nearest])
    counts = torch.ones(len(previous)) if counts is None else counts
    (new_table,) = resized.cbvila.quantizer.tables()
    new_table.set_codes(codes, _moved_counts(counts.to(previous), previous, codes))
    return resized.eval(), left_out


def _like(model: Any, config: Any) -> Any:
    """Returns a model of another configuration with all weights of `model` that fit."""
    new = type(model)._from_config(config, dtype=model.dtype).to(model.device)
    given = model.state_dict()
    for name, value in new.state_dict().items():
        if name in given and given[name].shape == value.shape:
            value.copy_(given[name])
    return new


def heads_by_code(model: Any) -> dict[str, nn.Module]:
    """Returns the layers with weights for each code by name."""
    names = {id(module): name for name, module in model.named_modules()}
    heads = [head for objective in model.objectives.values() for head in objective.code_weights()]
    return {names[id(head)]: head for head in heads}


def _unlike_objectives(model: Any, resized: Any) -> list[str]:
    """Returns the objectives with weights of another shape that are not weights for each code."""
    by_code = tuple(f"{name}." for name in heads_by_code(model))
    shapes = {name: value.shape for name, value in resized.state_dict().items()}
    unlike = [name for name, value in model.state_dict().items() if shapes.get(name, value.shape) != value.shape]
    return sorted(
        {name.split(".")[1] for name in unlike if name.startswith("objectives.") and not name.startswith(by_code)}
    )


def _moved_counts(counts: Tensor, previous: Tensor, codes: Tensor) -> Tensor:
    """Returns how often new codes (K', C) would be chosen, from the counts (K,) of previous codes (K, C)."""
    if len(codes) <= len(previous):
        return counts.new_zeros(len(codes)).index_add_(0, nearest_codes(previous, codes), counts)
    nearest = nearest_codes(codes, previous)  # new codes share the count of the previous one that is nearest
    return counts[nearest] / nearest.bincount(minlength=len(previous))[nearest]
