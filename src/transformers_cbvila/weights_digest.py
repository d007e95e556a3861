"""Which weights figures were measured on: a digest of a checkpoint's files of weights."""

import hashlib
import json
from pathlib import Path

from transformers.utils import CONFIG_NAME


def weights_digest(folder: str | Path) -> str | None:
    """Returns a digest of the weights in a folder, which evaluations record and publishing compares.

    Returns:
        The SHA-256 of the safetensors files in the order of their names, then of those of its language model's
        adapter, if it has one; None if there are no weights, as with a Hub id.
    """
    files = _weights_in(Path(folder))
    if not files:
        return None
    digest = hashlib.sha256()
    for path in [*files, *_weights_of_adapter(Path(folder))]:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _weights_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def _weights_of_adapter(folder: Path) -> list[Path]:
    config = folder / CONFIG_NAME
    name = json.loads(config.read_text(encoding="utf-8")).get("language_model_adapter") if config.is_file() else None
    return _weights_in(folder / name) if name else []
