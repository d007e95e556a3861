"""Distinguishes single images and texts from collections, and reads collections by position or iteration.

`len()` and `[...]` do not make a list: `[3]` is the row labelled 3 of a pandas Series and the value of the key 3 of a
dictionary. All functions that take many images or texts use this file, so that they read the same items in order.
"""

from collections.abc import Iterable, Mapping, Sequence
from io import IOBase
from os import PathLike
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset

from .messages_cbvila import shown

# Iterable or indexable types that are single items.
_SINGLE = (str, bytes, bytearray, memoryview, PathLike, Image.Image, IOBase, Mapping, np.generic)


def holds_several(value: Any) -> bool:
    """Returns whether a value is a collection of items, of any size, and not a single item.

    Collections are iterables, arrays of four dimensions (a batch of images) and arrays of objects or texts. A
    dictionary is a single item: a row.
    """
    if isinstance(value, _SINGLE):
        return False
    if isinstance(value, np.ndarray):
        return value.ndim > 3 or value.ndim > 0 and value.dtype.kind in "OUST"
    if isinstance(value, torch.Tensor):
        return value.ndim > 3
    return isinstance(value, (Iterable, Dataset)) or hasattr(type(value), "__getitem__")


def is_by_position(values: Any) -> bool:
    """Returns whether `values[i]` is item i, for i from 0 to `len(values)` - 1.

    That holds for sequences, data sets of torch and of `datasets` (recognized by `__getitems__`), and for classes that
    Python itself iterates by index.
    """
    kind = type(values)
    if isinstance(values, (Mapping, IterableDataset)):
        return False
    if not (hasattr(kind, "__getitem__") and hasattr(kind, "__len__")):
        return False
    return isinstance(values, (Sequence, Dataset)) or hasattr(kind, "__getitems__") or not hasattr(kind, "__iter__")


def items_of(values: Any, name: str) -> Any:
    """Returns a collection in a form that is read by position or by iteration.

    Args:
        values: A list, an array, a column, a data set, a generator …
        name: What messages call them: `"images"`.

    Returns:
        A collection for which `is_by_position` is true, or an iterable to read once. Arrays, and columns of pandas or
        polars, become lists.

    Raises:
        ValueError: If it is a single item, a dictionary, a set or a table.
    """
    if isinstance(values, Mapping):
        raise ValueError(
            f"{name} is a dictionary with the keys {shown(list(values))}: pass a list, e.g. list(d.values()), or one "
            "split of a dictionary of data sets"
        )
    if isinstance(values, (set, frozenset)):
        raise ValueError(f"{name} is a {type(values).__name__}, which has no order: pass a list, e.g. sorted(...)")
    if not holds_several(values):
        kind = "string" if isinstance(values, str) else "item"
        raise ValueError(f"{name} is one {kind}, {shown(values)}: pass a list, even of one item")
    if hasattr(values, "columns") and not isinstance(values, (Sequence, Dataset)):
        # Iterating frames of pandas and polars, or pyarrow tables, gives columns or their names.
        raise ValueError(
            f"{name} is a table ({type(values).__name__}): pass one of its columns as a list, e.g. "
            "list(table['column']), or its rows, e.g. table.to_dict('records')"
        )
    if isinstance(values, (np.ndarray, torch.Tensor)):
        return list(values)
    if is_by_position(values) or isinstance(values, IterableDataset):
        return values
    return list(values) if hasattr(values, "__len__") and hasattr(values, "__getitem__") else values


def by_position(values: Any, name: str) -> Any:
    """Returns a collection as `items_of` does, as a list if it is not read by position."""
    items = items_of(values, name)
    return items if is_by_position(items) else list(items)


def check_item(item: Any, name: str) -> None:
    """Checks that an item is not a collection; whoever reads it checks its type.

    Args:
        item: An item of the result of `items_of`.
        name: What messages call it: `"images[3]"`.

    Raises:
        ValueError: If it is None, a collection (a nested list, an array of four dimensions), or a row with fields.
    """
    if item is None:
        raise ValueError(f"{name} is missing (None)")
    if isinstance(item, Mapping):
        raise ValueError(
            f"{name} is a row with the fields {shown(list(item))}: pass one column of the rows, e.g. rows['image']"
        )
    if holds_several(item) and not _is_batch_of_one(item):
        form = f"an array of shape {tuple(item.shape)}" if hasattr(item, "shape") else shown(item)
        raise ValueError(f"{name} holds several items, {form}: pass them all in one list")


def _is_batch_of_one(item: Any) -> bool:
    return isinstance(item, (np.ndarray, torch.Tensor)) and item.ndim == 4 and len(item) == 1
