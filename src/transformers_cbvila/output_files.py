"""Writes files of results, after checking early that they can be written."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .model.messages_cbvila import shown
from .output_folders import UNFINISHED


def require_folder(option: str, path: str | Path | None) -> None:
    """Checks that the folder of an output file exists.

    Args:
        option: The option that names the file.
        path: The file; None if none is to be written.

    Raises:
        FileNotFoundError: If the folder does not exist; the message names the option.
    """
    if path is not None and not Path(path).absolute().parent.is_dir():
        raise FileNotFoundError(f"{option}={shown(str(path), 255)}: the folder isn't there; make it first.")


def write_json(path: str | Path, value: Any) -> None:
    """Writes a JSON file, under a temporary name until it is complete."""
    _write(path, json.dumps(value, indent=2) + "\n")


def write_json_lines(path: str | Path, values: Iterable[Any]) -> None:
    """Writes a JSON Lines file, under a temporary name until it is complete."""
    _write(path, "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values))


def _write(path: str | Path, text: str) -> None:
    unfinished = Path(f"{path}{UNFINISHED}")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
