"""Where a new folder may be written."""

from pathlib import Path


def is_free(path: str | Path) -> bool:
    """Whether nothing is at a path, or a folder with nothing in it, which is as good as none."""
    path = Path(path)
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))
