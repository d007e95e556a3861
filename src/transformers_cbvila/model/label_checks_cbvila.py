"""Labels and other ids that people give: checked before torch sees them, in every head by the same functions.

Shape and precision are always checked. To look at values on an accelerator is to wait for it, and no training step
shall: there the first batch of a model is looked at, which finds what is wrong with all of them, and no later one. On
the CPU every batch is looked at; in a graph (compiled, exported) none.
"""

from typing import Any

import torch
from torch import Tensor, nn

from .messages_cbvila import shown

IGNORED_LABEL = -100
LABEL = (torch.int64,)  # what torch takes for labels
INDEX = (torch.int64, torch.int32)  # what it takes rows by
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
    """Raises a ValueError unless `ids` are whole numbers from 0 to `limit` - 1, in a tensor of a shape.

    Args:
        rule: What messages say of them, such as "the model has 3 classes".
        owner: The model that is given them.
        ignored: Whether -100, which no loss counts, is allowed.
        dtypes: The precisions that they may have.
    """
    if not isinstance(ids, Tensor):
        raise ValueError(f"{name} are {shown(ids)}; expected a tensor {shape} of {dtypes[0]}: {rule}.")
    if tuple(ids.shape) != shape or ids.dtype not in dtypes:
        raise ValueError(f"{name} are {tuple(ids.shape)} of {ids.dtype}; expected {shape} of {dtypes[0]}: {rule}.")
    if not may_look_at(name, ids, owner):
        return
    outside = (ids < 0) | (ids >= limit)
    if ignored:
        outside &= ids != IGNORED_LABEL
    if outside.any():
        place = outside.nonzero()[0].tolist()
        raise ValueError(f"{name} hold {int(ids[tuple(place)])}, but {rule} (at {place}).")


def may_look_at(name: str, values: Tensor, owner: nn.Module) -> bool:
    """Whether the numbers themselves may be looked at now, as the top of this file says."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or values.is_meta:
        return False
    if values.device.type == "cpu":
        return True
    seen: set[str] = owner.__dict__.setdefault("_ids_seen", set())  # of this model, and no state of it
    is_first = name not in seen
    seen.add(name)
    return is_first
