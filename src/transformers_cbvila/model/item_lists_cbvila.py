"""Tells one image or text from many, and says how many are read: by position, or by iteration.

`len()` and `[...]` do not make a list. What `[3]` gives is the row labelled 3 of a pandas Series, the value of the key
3 of a dictionary, and nothing of a set. Whatever takes many images or texts asks here, so that all of it reads the
same items in the same order.
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

_ONE = (
    str,
    bytes,
    bytearray,
    memoryview,
    PathLike,
    Image.Image,
    IOBase,
    Mapping,
    np.generic,
)  # of these none is a list of items


def holds_several(value: Any) -> bool:
    """Whether a value is many items, however many, and not one.

    Many are what can be read item by item, arrays of four dimensions (a batch of images) and arrays of objects or
    texts. A dictionary is one: a row.
    """
    if isinstance(value, _ONE):
        return False
    if isinstance(value, np.ndarray):
        return value.ndim > 3 or value.ndim > 0 and value.dtype.kind in "OUST"
    if isinstance(value, torch.Tensor):
        return value.ndim > 3
    return isinstance(value, (Iterable, Dataset)) or hasattr(type(value), "__getitem__")


def is_by_position(values: Any) -> bool:
    """Whether `values[i]` is item i, for i from 0 to `len(values)`, and can be had without those before it.

    So it is for sequences, torch's data sets, those of `datasets` (which give several rows at once, as torch asks of
    such), and for what iteration itself would read by number.
    """
    kind = type(values)
    if isinstance(values, (Mapping, IterableDataset)):
        return False
    if not (hasattr(kind, "__getitem__") and hasattr(kind, "__len__")):
        return False
    return isinstance(values, (Sequence, Dataset)) or hasattr(kind, "__getitems__") or not hasattr(kind, "__iter__")


def items_of(values: Any, name: str) -> Any:
    """Many items in a form that says how to read them.

    Args:
        values: a list, an array, a column, a data set, a generator ...
        name: what the caller calls them: "images".

    Returns:
        What `is_by_position` holds for, or an iterable that is read once. A list for arrays, and for what is in memory
        and numbered otherwise, such as a pandas or polars column.

    Raises:
        ValueError: it is one item, a dictionary, a set or a table; the message says what to pass.
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
        # pandas and polars frames, pyarrow tables: iterating gives columns, or their names
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
    """The same, read to its end where it is not by position already."""
    items = items_of(values, name)
    return items if is_by_position(items) else list(items)


def check_item(item: Any, name: str) -> None:
    """Refuse what is no single image or text. Of one kind or another, whoever reads it says the rest.

    Args:
        item: an element of what `items_of` gave.
        name: what to call it in an error: "images[3]".

    Raises:
        ValueError: it is None, several items (a nested list, an array of four dimensions), or a row with fields.
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
