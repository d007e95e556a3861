"""Texts of a row, from the forms in which people keep them: one reader for pretraining and for every task."""

from collections.abc import Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from math import isnan
from typing import Any

from ..model.messages_cbvila import shown

_TEXT_KEYS = ("answer", "raw", "caption", "text")  # of records: VQA's answers, Karpathy's sentences
_WRITTEN = (bool, int, float, Decimal, date, time)  # values that are a text as soon as they are written down


def texts_of(value: Any, what: str) -> list[str]:
    """The texts of a cell, of which there is at least one; see [`texts_in`].

    Raises:
        ValueError: If there is none that has a letter, a digit or a sign to show.
    """
    texts = texts_in(value, what)
    if not texts:
        raise ValueError(f"it has no {what} ({shown(value)})")
    return texts


def texts_in(value: Any, what: str) -> list[str]:
    """Texts from a text, a list of texts, a list of records that hold one each, or a record of lists; none of blanks.

    A number is the text it is written as; a list of numbers is none, as features and boxes are kept so.

    Args:
        value: The cell.
        what: What an error calls one of its texts.

    Raises:
        ValueError: If it holds something else.
    """
    items = items_of(value, what)
    if is_list(value) and any(isinstance(item, _WRITTEN) and not is_missing(item) for item in items):
        raise ValueError(f"its {what} is a list of numbers ({shown(value)}); expected a text, or a list of texts")
    return [text for item in items if (text := text_of(item, what))]


def items_of(value: Any, what: str) -> list[Any]:
    """The items of a list or of a record of lists; anything else as the only one."""
    if isinstance(value, Mapping):
        value = _of_record(value, what)
    return list(value) if is_list(value) else [value]


def text_of(item: Any, what: str) -> str:
    """A text, or that of a record; "" where there is nothing to show."""
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
    """The names that the numbers of a column stand for, alone or in lists, where it is a `ClassLabel` and says so."""
    inner = getattr(feature, "feature", None) or (feature[0] if isinstance(feature, list) and feature else feature)
    return getattr(inner, "names", None)


def named(value: Any, names: Sequence[str] | None) -> Any:
    """A cell whose class numbers are the names that they stand for; what no name has is missing, as -1 is."""
    if names is None:
        return value
    if is_list(value):
        return [named(item, names) for item in value]
    return value if not isinstance(value, int) else names[value] if 0 <= value < len(names) else None


def is_list(value: Any) -> bool:
    """Whether a cell holds several values."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def whole(value: Any) -> Any:
    """A whole number as such: a gap in a column of whole numbers makes floats of them."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def is_missing(value: Any) -> bool:
    """Whether there is nothing in a column's place; an empty cell of a CSV file is an empty text."""
    return value is None or value == "" or isinstance(value, float) and isnan(value)


def _of_record(record: Mapping[str, Any], what: str) -> Any:
    key = next((key for key in _TEXT_KEYS if key in record), None)
    if key is None:
        raise ValueError(
            f"its {what} is a record of {shown(list(record))}; expected a text, or a record with one of "
            f"{', '.join(_TEXT_KEYS)}"
        )
    return record[key]
