"""The columns of a source that are meant, by a given name or a usual one, and the error where there is none."""

import re
from collections.abc import Sequence
from pathlib import Path

from ..model.messages_cbvila import listed
from .images import resolve_image_column
from .source_files import find_source, is_metadata, passed_over, shown_name


def usual_column(usual: Sequence[str], names: Sequence[str]) -> str | None:
    """Returns the first of the usual names that is among the names of columns, or None."""
    return next((name for name in usual if name in names), None)


def find_column(given: str | None, usual: Sequence[str], names: Sequence[str], source: str, option: str) -> str:
    """Returns the name of a column: the given one or, without one, the first usual one that the source has.

    Args:
        given: What the user named, if anything.
        usual: What is looked for otherwise, in this order.
        names: Columns of the source.
        source: The source, for errors.
        option: The option that names the column, for errors.

    Raises:
        ValueError: If there is no such column; the message lists those that there are.
    """
    column = given or usual_column(usual, names)
    if column is None or column not in names:
        what = f"column {given!r}" if given else f"column called {', '.join(usual)}"
        raise missing_column(source, what, option, names)
    return column


def find_image_column(given: str, names: Sequence[str], source: str) -> str:
    """Returns the column that an image column means in a source; see [`resolve_image_column`].

    Raises:
        ValueError: If there is none.
    """
    column = resolve_image_column(given, names)
    if column is None:
        raise missing_column(source, f"column {given!r}", "image_column", names)
    return column


def missing_column(source: str, what: str, option: str, names: Sequence[str]) -> ValueError:
    """Returns the error of a source without a column: it lists the columns that it has, and files that may have it."""
    message = f"{shown_name(source)} has no {what}; set {option} to one of {listed(names)}."
    if len(names) == 1 and (divider := re.search(r"[;\t|]", names[0])):
        return ValueError(f"{message} The columns seem to be divided by {divider[0]!r}: divide them by commas.")
    found = find_source(source)
    pictures = found.files if found is not None and found.kind == "images" else None
    aside = [] if pictures is None else passed_over(source, pictures)
    if pictures is not None and not aside and list(names) == ["image"]:
        return ValueError(
            f"{shown_name(source)} has pictures alone, and no {what}: put a metadata.jsonl into it, with a line for "
            'each picture that has it, {"file_name": "a.png", …}.'
        )
    if not aside:
        return ValueError(message)
    described = any(map(is_metadata, aside))
    return ValueError(
        f"{message} {shown_name(aside[0])} is passed over: "
        + (
            "a metadata file describes the images of its own split, so put one into the folder of each."
            if described
            else "name that file instead of its folder, or call it metadata"
            f"{Path(aside[0]).suffix} and its column of images file_name."
        )
    )
