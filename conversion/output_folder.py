"""Writes the output folder of a conversion, complete or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from transformers_cbvila.output_folders import is_free


def refuse_existing(path: str | Path, overwrite: bool, *inputs: str | None) -> None:
    """Checks that a folder can be written; called early so that no work is lost.

    Args:
        path: The folder.
        overwrite: Whether an existing model's folder may be replaced. Other folders, and those that contain one of the
            `inputs`, may not.
        *inputs: Names of inputs, which may be files or folders.

    Raises:
        ValueError: If there is something at `path` that may not be replaced.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file: --output_dir must be a folder.")
    if not is_free(path) and not overwrite:
        raise ValueError(f"{path} is there already: choose another --output_dir, or --overwrite to replace it.")
    if not is_free(path) and not (path / "config.json").is_file():
        raise ValueError(f"{path} is no model's folder: not even --overwrite replaces it.")
    for name in inputs:
        if name and Path(name).exists() and Path(name).resolve().is_relative_to(path.resolve()):
            raise ValueError(f"{name} is in the output folder {path}, which would be replaced: choose another one.")


@contextmanager
def written_folder(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Gives a temporary folder to write into, which is moved to `path` when the block ends without an error.

    Raises:
        ValueError: See [`refuse_existing`]; nothing has been written then.
    """
    path = Path(path)
    refuse_existing(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        new, old = work / "new", work / "old"
        new.mkdir()
        yield new
        if path.exists():
            os.replace(path, old)
        os.replace(new, path)
    finally:
        if (work / "old").exists() and not path.exists():
            os.replace(work / "old", path)
        shutil.rmtree(work)


def read_back(model: PreTrainedModel, folder: Path, **options: Any) -> int:
    """Loads a saved model and compares every weight.

    Args:
        model: The model that was saved.
        folder: Its folder.
        **options: Passed to `from_pretrained`.

    Returns:
        The number of weights.

    Raises:
        ValueError: If one is missing or differs.
    """
    loaded, info = type(model).from_pretrained(folder, output_loading_info=True, **options)
    strange = sorted({*info["missing_keys"], *info["unexpected_keys"]})
    if strange:
        raise ValueError(f"The saved model does not load: {', '.join(strange)}.")
    weights = loaded.state_dict()
    for name, value in model.state_dict().items():
        if not torch.equal(weights[name], value):
            raise ValueError(f"{name} differs after saving and loading.")
    return len(weights)
