"""Folders that a long job writes file by file, and goes on with after a stop."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .model.messages_cbvila import shown

UNFINISHED = ".unfinished"  # end of the name of a file that is not complete yet


def is_free(path: str | Path) -> bool:
    """Returns whether a path does not exist or is an empty folder."""
    path = Path(path)
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))


def free_folder(path: str | Path) -> Path:
    """Returns an absolute path at which there is nothing but perhaps an empty folder.

    Raises:
        ValueError: If there is something.
    """
    # Absolute because processes in other folders read it. (Before Python 3.12 a temporary folder is not absolute.)
    target = Path(path).absolute()
    if not is_free(target):
        raise ValueError(f"{target} is there already; name another folder, or move it away")
    return target


@contextmanager
def written_at_once(target: Path) -> Iterator[Path]:
    """Yields an empty folder that is moved to `target` when all is written, and removed after an error.

    Args:
        target: What [`free_folder`] returned.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        folder = Path(scratch, target.name)
        folder.mkdir()
        yield folder
        if target.is_dir():
            target.rmdir()  # an empty folder, which os.replace does not replace on every system
        os.replace(folder, target)


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
