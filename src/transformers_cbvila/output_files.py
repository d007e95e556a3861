"""Files of figures: whether they can be written is asked before anything is measured, and they are written whole."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .model.messages_cbvila import shown


def require_folder(option: str, path: str | Path | None) -> None:
    """Raises a FileNotFoundError, which names the option, unless there is the folder of a file that is to be written.

    Args:
        option: The option that names the file.
        path: The file; None where none is asked for.
    """
    if path is not None and not Path(path).absolute().parent.is_dir():
        raise FileNotFoundError(f"{option}={shown(str(path), 255)}: the folder isn't there; make it first.")


def write_json(path: str | Path, value: Any) -> None:
    """Writes a JSON file, whole or not at all."""
    _write(path, json.dumps(value, indent=2) + "\n")


def write_json_lines(path: str | Path, values: Iterable[Any]) -> None:
    """Writes a JSON Lines file, whole or not at all."""
    _write(path, "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values))


def _write(path: str | Path, text: str) -> None:
    unfinished = Path(f"{path}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
