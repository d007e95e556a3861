"""Folders that a long job writes file by file, and goes on with after a stop."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .model.messages_cbvila import shown

UNFINISHED = ".unfinished"  # end of the name of a file that is not complete yet


def is_free(path: str | Path) -> bool:
    """Returns whether a path does not exist or is an empty folder."""
    path = Path(path)
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))


def remove_unfinished(folder: Path) -> None:
    """Removes what an interrupted run left of files that were not complete."""
    for leftover in folder.glob(f"*{UNFINISHED}"):
        leftover.unlink()


def require_same_description(folder: str | Path, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Checks that a folder holds what is to be written into it.

    Raises:
        ValueError: If an entry of `wanted` is another one in its description; the message names it.
    """
    for name, value in wanted.items():
        if there.get(name) != value:
            raise ValueError(
                f"{folder} was written with {name}={shown(there.get(name))}, and this is {name}={shown(value)}: give "
                "another folder, or delete this one to start again."
            )
