"""Finds the model that a tower starts from: on this machine, or on the Hub."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from safe_loading import first_line

# What a conversion reads of a repository. Nothing of it is run.
_FILES = ["*.json", "*.txt", "model*.safetensors", "pytorch_model*.bin"]


def find(name: str) -> Path:
    """The file or folder of that name, or a copy of the Hub's repository.

    Raises:
        ValueError: If there is neither.
    """
    path = Path(name)
    if path.exists():
        return path
    try:
        return Path(snapshot_download(name, allow_patterns=_FILES))
    except Exception as error:  # no such repository, no network, no valid name: all mean that it is not there
        raise ValueError(
            f"{name} is no file or folder, and the Hub does not give it either: {first_line(error)}."
        ) from error


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a model folder.

    Raises:
        ValueError: If there is none.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} has no readable config.json: {first_line(error)}.") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} is no mapping.")
    return config
