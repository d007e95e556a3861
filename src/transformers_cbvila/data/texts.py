"""Texts of a row, in any of the usual forms: one reader for pretraining and for every task."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from math import isnan
from typing import Any

from ..model.messages_cbvila import shown

_TEXT_KEYS = ("answer", "raw", "caption", "text")  # of records: VQA's answers, Karpathy's sentences
_WRITTEN = (bool, int, float, Decimal, date, time)  # values whose text is how they are written


def texts_of(value: Any, what: str) -> list[str]:
    """Returns the texts of a cell, at least one; see [`texts_in`].

    Raises:
        ValueError: If there is none with a printable character.
    """
    texts = texts_in(value, what)
    if not texts:
        raise ValueError(f"it has no {what} ({shown(value)})")
    return texts


def texts_in(value: Any, what: str) -> list[str]:
    """Returns the texts in a text, a list of texts, a list of records with one each, or a record of lists.

    Blank texts are left out. A number is the text it is written as, but a list of numbers is an error: features and
    boxes are stored so.

    Args:
        value: The cell.
        what: What an error calls one of its texts.

    Raises:
        ValueError: If the cell holds something else.
    """
    return [text for text in texts_or_blanks(value, what) if text]


def attributes_in(value: Any) -> list[str]:
    """Returns the distinct texts at any depth of records, such as shapes and colours of objects, in their order.

    Empty unless the cell is a record, or a list of records, of which none has a text in a usual field: those are
    texts, which [`texts_in`] reads.
    """
    records = list(value) if is_list(value) else [value]
    if not records or not all(isinstance(record, Mapping) and not set(_TEXT_KEYS) & set(record) for record in records):
        return []
    return list(dict.fromkeys(text for text in _leaves(records) if text.strip()))


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if is_list(value):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, str):
        yield value


def texts_or_blanks(value: Any, what: str) -> list[str]:
    """Returns the texts of a cell as [`texts_in`] does, with "" in the place of blank ones; none of a blank cell."""
    items = items_of(value, what)
    if is_list(value) and any(isinstance(item, _WRITTEN) and not is_missing(item) for item in items):
        raise ValueError(f"its {what} is a list of numbers ({shown(value)}); expected a text, or a list of texts")
    texts = [text_of(item, what) for item in items]
    return texts if any(texts) else []


def items_of(value: Any, what: str) -> list[Any]:
    """Returns the items of a list or of a record of lists; anything else as the only item."""
    if isinstance(value, Mapping):
        value = _of_record(value, what)
    return list(value) if is_list(value) else [value]


def text_of(item: Any, what: str) -> str:
    """Returns a text, or that of a record; "" if it has no printable character."""
    if isinstance(item, Mapping):
        item = _of_record(item, what)
    if is_missing(item):
        return ""
    if isinstance(item, _WRITTEN):
        item = str(whole(item))
    if not isinstance(item, str):
        raise ValueError(f"its {what} is of type {type(item).__name__} ({shown(item)}); expected text")
    return item.strip() if any(sign.isprintable() and not sign.isspace() for sign in item) else ""


def class_names(feature: Any) -> Sequence[str] | None:
    """Returns the names of a `ClassLabel` column, alone or in lists; None for other columns."""
    inner = getattr(feature, "feature", None) or (feature[0] if isinstance(feature, list) and feature else feature)
    return getattr(inner, "names", None)


def named(value: Any, names: Sequence[str] | None) -> Any:
    """Returns a cell with names instead of class numbers; numbers without a name, such as -1, are missing."""
    if names is None:
        return value
    if is_list(value):
        return [named(item, names) for item in value]
    return value if not isinstance(value, int) else names[value] if 0 <= value < len(names) else None


def is_list(value: Any) -> bool:
    """Whether a cell holds several values."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def whole(value: Any) -> Any:
    """Returns an int for an integral float: a gap in a column of integers makes floats of them."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def is_missing(value: Any) -> bool:
    """Whether a value is missing; an empty cell of a CSV file is an empty text."""
    return value is None or value == "" or isinstance(value, float) and isnan(value)


def _of_record(record: Mapping[str, Any], what: str) -> Any:
    key = next((key for key in _TEXT_KEYS if key in record), None)
    if key is None:
        raise ValueError(
            f"its {what} is a record of {shown(list(record))}; expected a text, or a record with one of "
            f"{', '.join(_TEXT_KEYS)}"
        )
    return record[key]
