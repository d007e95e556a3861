"""Checks of numeric arguments."""

from math import isfinite
from numbers import Integral, Real
from typing import Any

from .messages_cbvila import shown


def check_whole(name: str, value: Any, least: int = 1) -> None:
    """Raises a ValueError unless `value` is a whole number of at least `least`."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}={shown(value)} must be a whole number of at least {least}")


def check_number(name: str, value: Any, above: float | None = None) -> None:
    """Raises a ValueError unless `value` is a finite number, greater than `above` if that is given."""
    if not isinstance(value, Real) or isinstance(value, bool) or not isfinite(value):
        raise ValueError(f"{name}={shown(value)} must be a finite number")
    if above is not None and value <= above:
        raise ValueError(f"{name}={shown(value)} must be above {above:g}")
