"""Checks of labels, indices and other ids, shared by all heads.

Shape and dtype are always checked. Reading values synchronizes with an accelerator, which no training step should wait
for: there the values of a model's first batch are checked, but no later ones. On the CPU those of every batch are
checked; in a compiled or exported graph none are.
"""

from typing import Any

import torch
from torch import Tensor, nn

from .messages_cbvila import shown

IGNORED_LABEL = -100
LABEL = (torch.int64,)  # dtypes of labels in torch's losses
INDEX = (torch.int64, torch.int32)  # dtypes of indices in index_select and embeddings
ANY_INTEGER = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def check_ids(
    name: str,
    ids: Any,
    shape: tuple[int, ...],
    limit: int,
    rule: str,
    owner: nn.Module,
    ignored: bool = True,
    dtypes: tuple[torch.dtype, ...] = LABEL,
) -> None:
    """Raises a ValueError unless `ids` is a tensor of whole numbers from 0 to `limit` - 1.

    Args:
        name: Name of the argument, for messages.
        ids: The value to check.
        shape: The expected shape.
        limit: Number of valid ids.
        rule: What messages say about them, such as "the model has 3 classes".
        owner: The module that received them.
        ignored: Whether -100, which losses ignore, is allowed.
        dtypes: The allowed dtypes.
    """
    if not isinstance(ids, Tensor):
        raise ValueError(f"{name} are {shown(ids)}; expected a tensor {shape} of {dtypes[0]}: {rule}.")
    if tuple(ids.shape) != shape or ids.dtype not in dtypes:
        raise ValueError(f"{name} are {tuple(ids.shape)} of {ids.dtype}; expected {shape} of {dtypes[0]}: {rule}.")
    if not may_read_values(name, ids, owner):
        return
    outside = (ids < 0) | (ids >= limit)
    if ignored:
        outside &= ids != IGNORED_LABEL
    if outside.any():
        position = outside.nonzero()[0].tolist()
        raise ValueError(f"{name} hold {int(ids[tuple(position)])}, but {rule} (at {position}).")


def may_read_values(name: str, values: Tensor, owner: nn.Module) -> bool:
    """Returns whether to check the values of an argument now, see the docstring of this file."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or values.is_meta:
        return False
    if values.device.type == "cpu":
        return True
    seen: set[str] = owner.__dict__.setdefault("_ids_seen", set())
    is_first = name not in seen
    seen.add(name)
    return is_first
