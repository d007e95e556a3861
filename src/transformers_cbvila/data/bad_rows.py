"""What errors call a row, and what is said of rows that cannot be used."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..model.messages_cbvila import shown

KEY, URL = "__key__", "__url__"  # columns of every WebDataset: the name of a sample, and the file it is in
FAULT = "fault"  # column of a stream: what is wrong with a row's texts, found when it was read
WAY_OUT = "Correct it, or leave such rows out with skip_bad_rows"
NAMED = 5  # bad rows whose reasons are said
TRIES = 1000  # rows that are tried in the place of a bad one


class BadRowError(ValueError):
    """A row cannot be used; the message names it and the way out."""


def summary_of_bad_rows(reasons: Sequence[str], count: int | None = None) -> str:
    """How many rows were left out, and why the first of them.

    Args:
        reasons: Why, by row; each names its row.
        count: How many there are, where `reasons` are those of the first only.
    """
    count = len(reasons) if count is None else count
    first = "".join(f"\n  {reason}" for reason in reasons[:NAMED])
    rest = count - min(len(reasons), NAMED)
    more = f"\n  and {rest:,} more" if first and rest else ""
    return f"Left out {count:,} bad row(s){':' if first else '.'}{first}{more}"


def reason(error: ValueError) -> str:
    """What an error says of a row, without the way out: for those who take it."""
    return str(error).removesuffix(f". {WAY_OUT}.")


def row_origin(source: str, number: int, row: Mapping[str, Any]) -> str:
    """What an error calls a row of a source: its number, or the key and the file of a sample that has them."""
    return f"Sample {shown(row[KEY])} of {row.get(URL) or source}" if KEY in row else f"Row {number} of {source}"


def key_columns(names: Sequence[str]) -> list[str]:
    """The columns among these that [`row_origin`] reads."""
    return [name for name in (KEY, URL) if name in names]
