"""Which items a filter lets pass, by their metadata."""

from collections.abc import Callable, Mapping, Sequence
from numbers import Number
from typing import Any

import torch
from torch import Tensor

from ..model.item_lists_cbvila import holds_several
from ..model.messages_cbvila import shown
from ..nearest import nearest

Filter = Callable[[dict[str, Any]], Any] | Mapping[str, Any]


def rows_that_pass(chosen: Filter, metadata: Sequence[dict[str, Any]]) -> Tensor:
    """Returns the rows (n,) of the items that a filter lets pass, in their order.

    Args:
        chosen: A function of an item's metadata, or the values of columns: an item passes if each of its columns has
            the value, or one of a list of values; these are texts, numbers, True, False or None. An item without the
            column doesn't.
        metadata: The metadata of all items.

    Raises:
        ValueError: If it is neither, items have no metadata, or none has one of the columns.
    """
    if not callable(chosen) and not isinstance(chosen, Mapping):
        raise ValueError(
            f"filter={shown(chosen)} must be a function of an item's metadata, or a dictionary of columns and values."
        )
    if not metadata:
        raise ValueError(
            "filter: what is indexed has no metadata; index a folder of pictures, or call index(..., metadata=[…])."
        )
    passes = chosen if callable(chosen) else _values_filter(chosen, metadata)
    return torch.tensor([row for row, columns in enumerate(metadata) if passes(columns)], dtype=torch.long)


def _values_filter(values: Mapping[str, Any], metadata: Sequence[dict[str, Any]]) -> Callable[[dict[str, Any]], bool]:
    for name in values:
        if not any(name in columns for columns in metadata):
            known = list(dict.fromkeys(column for columns in metadata for column in columns))
            raise ValueError(
                f"filter has the column {shown(name)}, and the metadata have {shown(known, 200)}{nearest(name, known)}"
            )
    wanted = {name: list(value) if holds_several(value) else [value] for name, value in values.items()}
    for name, some in wanted.items():
        for value in some:
            if not isinstance(value, str | Number | None):
                raise ValueError(
                    f"filter[{name!r}] has {shown(value)}: values are texts, numbers, True, False and None. For "
                    "anything else pass a function of an item's metadata."
                )
    return lambda columns: all(name in columns and columns[name] in some for name, some in wanted.items())
