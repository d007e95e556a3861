"""Stages the files of a Hub repository in a folder."""

import json
import shutil
from pathlib import Path
from typing import Any

from transformers.utils import ADAPTER_CONFIG_NAME, CONFIG_NAME, PROCESSOR_NAME

from ..model.processing_cbvila import MODEL_INPUT_NAMES
from ..model.remote_code_cbvila import (
    names_in_config,
    names_in_image_processor_config,
    names_in_processor_config,
    save_code,
)
from .adapters import published_adapter
from .checking import Checkpoint
from .outside_classes import outside_code

TOKENIZER_CONFIG = "tokenizer_config.json"


def stage(checkpoint: Checkpoint, card: str, folder: str | Path) -> None:
    """Writes the files to publish into an empty folder: weights, configurations, tokenizer, code, card and export.

    Other files in the checkpoint's folder (optimizer, logs, pickled arguments) are not published.

    Args:
        checkpoint: The checkpoint.
        card: Text of the card.
        folder: The empty folder.

    Raises:
        ValueError: If a quantizer or objective from outside the package cannot be published; nothing is written then.
    """
    additions = outside_code(checkpoint.config)
    folder = Path(folder)
    for name in checkpoint.files:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(checkpoint.folder / name, folder / name)
    save_code(folder)
    for name, text in additions.items():
        (folder / name).write_text(text, encoding="utf-8")
    _write_json(folder / CONFIG_NAME, _published_config(checkpoint))
    if (adapter := checkpoint.config.get("language_model_adapter")) is not None:
        _write_json(folder / adapter / ADAPTER_CONFIG_NAME, published_adapter(checkpoint.folder, checkpoint.config))
    _write_json(folder / PROCESSOR_NAME, _published_processor(checkpoint))
    _write_json(folder / TOKENIZER_CONFIG, _published_tokenizer(checkpoint))
    (folder / "README.md").write_text(card, encoding="utf-8")


def _published_config(checkpoint: Checkpoint) -> dict[str, Any]:
    config = {key: value for key, value in checkpoint.config.items() if key != "custom_pipelines"}
    return {**config, **names_in_config(checkpoint.kind.model_class.__name__)}


def _published_processor(checkpoint: Checkpoint) -> dict[str, Any]:
    processor = json.loads((checkpoint.folder / PROCESSOR_NAME).read_text(encoding="utf-8"))
    image_processor = {**processor["image_processor"], "auto_map": names_in_image_processor_config()}
    names = names_in_processor_config(processor["processor_class"])
    return {**processor, "image_processor": image_processor, "auto_map": names}


def _published_tokenizer(checkpoint: Checkpoint) -> dict[str, Any]:
    """Returns the tokenizer's configuration with `model_input_names`, which earlier versions did not save."""
    tokenizer = json.loads((checkpoint.folder / TOKENIZER_CONFIG).read_text(encoding="utf-8"))
    return {**tokenizer, "model_input_names": MODEL_INPUT_NAMES}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
