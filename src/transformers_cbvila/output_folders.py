"""Checks whether a folder can be written."""

from pathlib import Path


def is_free(path: str | Path) -> bool:
    """Returns whether a path does not exist or is an empty folder."""
    path = Path(path)
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))
