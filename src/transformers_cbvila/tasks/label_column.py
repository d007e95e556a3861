"""Labels of classes in the forms in which people keep them: names, numbers, or numbers with names elsewhere."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..data.texts import class_names, is_missing, whole
from ..model.messages_cbvila import shown


def label_reader(
    column: str, features: Any, classes: Sequence[str], names: Sequence[str] = ()
) -> Callable[[Mapping[str, Any]], str]:
    """Returns what reads the class of a row, by its name among `classes`.

    Args:
        column: The column with the labels.
        features: Of the source.
        classes: Names of the classes that labels may have.
        names: Of labels that are numbers and say nothing else: the classes, from 0 on.

    Raises:
        ValueError: If labels are numbers that nobody named.
    """
    known_names = names or class_names(features[column])
    dtype = str(getattr(features[column], "dtype", ""))
    if known_names is None and dtype.startswith(("int", "uint", "float")):
        known_names = _false_and_true(classes)
        if known_names is None:
            raise ValueError(f"{_unnamed(column, classes)}.")
    canonical = {name.lower(): name for name in classes}

    def read(row: Mapping[str, Any]) -> str:
        value = row[column]
        if is_missing(value) or isinstance(value, str) and not value.strip():
            raise ValueError(f"it has no label ({shown(value)})")
        name = canonical.get(str(value).strip().lower())
        number = _number(value)
        if name is not None or number is None:
            return _class(name, value, classes)
        known = known_names or _false_and_true(classes)
        if known is None:
            raise ValueError(f"its label is {shown(value)}. {_unnamed(column, classes)}")
        value = known[number] if 0 <= number < len(known) else f"class {number}"
        return _class(canonical.get(value.lower()), value, classes)

    return read


def _class(name: str | None, value: Any, classes: Sequence[str]) -> str:
    if name is None:
        raise ValueError(f"its label is {shown(value)}; the classes are {', '.join(classes)}")
    return name


def _number(value: Any) -> int | None:
    """The number of a class, which is a text where all columns are, such as in CSV files; None if it is none."""
    value = whole(value)
    if isinstance(value, str) and re.fullmatch(r"\s*\d+(\.0*)?\s*", value):
        return int(float(value))
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _false_and_true(classes: Sequence[str]) -> list[str] | None:
    """These classes in this order, which is that of their numbers everywhere; None if the classes are others."""
    names = sorted(classes, key=str.lower)
    return names if [name.lower() for name in names] == ["false", "true"] else None


def _unnamed(column: str, classes: Sequence[str]) -> str:
    return (
        f"Column {column!r} has numbers and no names for them; say what they mean from 0 on, such as "
        f"--class_names {' '.join(classes)}, in the order of the data"
    )
