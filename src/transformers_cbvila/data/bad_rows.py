"""Rows that cannot be used: what errors call them, and the summary of those that were left out."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..model.messages_cbvila import shown

KEY, URL = "__key__", "__url__"  # columns of every WebDataset: a sample's name and its file
FAULT = "fault"  # column of a stream: what is wrong with a row's texts, found when it was read
WAY_OUT = "Correct it, or leave such rows out with skip_bad_rows"
NAMED = 5  # bad rows whose reasons a summary gives
TRIES = 1000  # rows that are tried in place of a bad one


class BadRowError(ValueError):
    """A row cannot be used; the message names it and the way out."""


def summary_of_bad_rows(reasons: Sequence[str], count: int | None = None) -> str:
    """Returns how many rows were left out, and why the first ones were.

    Args:
        reasons: Why, by row; each names its row.
        count: How many there are, if `reasons` are those of the first only.
    """
    count = len(reasons) if count is None else count
    first = "".join(f"\n  {reason}" for reason in reasons[:NAMED])
    rest = count - min(len(reasons), NAMED)
    more = f"\n  and {rest:,} more" if first and rest else ""
    return f"Left out {count:,} bad row(s){':' if first else '.'}{first}{more}"


def reason(error: ValueError) -> str:
    """Returns what an error says of a row, without the way out, which is taken where it is reported."""
    return str(error).removesuffix(f". {WAY_OUT}.")


def row_origin(source: str, number: int, row: Mapping[str, Any]) -> str:
    """Returns what an error calls a row of a source: its number, or a sample's key and file."""
    return f"Sample {shown(row[KEY])} of {row.get(URL) or source}" if KEY in row else f"Row {number} of {source}"


def key_columns(names: Sequence[str]) -> list[str]:
    """Returns those of the columns that [`row_origin`] reads."""
    return [name for name in (KEY, URL) if name in names]
