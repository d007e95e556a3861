"""Finds a model on this machine or on the Hub."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from safe_loading import first_line

# The files that a conversion reads; no code is downloaded.
_FILES = ["*.json", "*.txt", "model*.safetensors", "pytorch_model*.bin"]


def find(name: str) -> Path:
    """Returns the path of a file or folder, or of a downloaded copy of a Hub repository.

    Raises:
        ValueError: If there is neither.
    """
    path = Path(name)
    if path.exists():
        return path
    try:
        return Path(snapshot_download(name, allow_patterns=_FILES))
    except Exception as error:  # no such repository, no network, an invalid name: of various types
        raise ValueError(
            f"{name} is no file or folder, and it cannot be loaded from the Hub: {first_line(error)}."
        ) from error


def read_config(folder: Path) -> dict[str, Any]:
    """Reads the configuration of a model folder.

    Raises:
        ValueError: If there is none, or it cannot be read.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} has no readable config.json: {first_line(error)}.") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} is no mapping.")
    return config
