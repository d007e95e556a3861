"""The adapter (PEFT) of a checkpoint's language model: which of its files are published, and what they name."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.utils import ADAPTER_CONFIG_NAME, ADAPTER_SAFE_WEIGHTS_NAME


def adapter_files(folder: Path, config: Mapping[str, Any]) -> list[str]:
    """Returns the names, relative to a checkpoint's folder, of the files of its adapter; [] without one.

    Raises:
        ValueError: If one is missing.
    """
    name = config.get("language_model_adapter")
    if name is None:
        return []
    names = [f"{name}/{file}" for file in (ADAPTER_CONFIG_NAME, ADAPTER_SAFE_WEIGHTS_NAME)]
    for file in names:
        if not (folder / file).is_file():
            raise ValueError(
                f"{folder} has no {file}, and its config.json names language_model_adapter={name!r}; save the model "
                "there with save_pretrained(folder)"
            )
    return names


def published_adapter(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an adapter's configuration, which names the language model as config.json does: by its Hub id."""
    written = json.loads((folder / config["language_model_adapter"] / ADAPTER_CONFIG_NAME).read_text(encoding="utf-8"))
    return {**written, "base_model_name_or_path": config["language_model"]}
