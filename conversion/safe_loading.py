"""Reads the tensors of a checkpoint without executing code in it."""

import json
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor


def load_tensors(path: str | Path) -> dict[str, Tensor]:
    """Loads the tensors of a `torch.save` or safetensors file, at the top level or under `model` or `state_dict`.

    Raises:
        ValueError: If the file is broken, not a checkpoint, or needs code to be executed.
        FileNotFoundError: If there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is no complete safetensors file: {first_line(error)}") from error
    content = _unpickled(path)
    for name in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
            break
    if not isinstance(content, dict) or not content:
        found = f"a {type(content).__name__}" if content or not isinstance(content, dict) else "nothing"
        raise ValueError(f"{path} holds {found}; expected weights by name, bare or under the key 'model'.")
    others = [str(key) for key, value in content.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if others:
        raise ValueError(f"{path}: {others[0]} is no tensor; expected weights by name, bare or under the key 'model'.")
    return dict(content)


def _unpickled(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what torch then refuses
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file may fail anywhere in the reader
        blocked = re.search(r"Unsupported (?:global|class|type)\S*:? (?:GLOBAL )?([\w.]+)|GLOBAL ([\w.]+)", str(error))
        if blocked:
            name = blocked.group(1) or blocked.group(2)
            raise ValueError(
                f"{path} does not only hold tensors: it asks for {name}, which could run code when it is loaded. It "
                "was not. Save the state dict alone: torch.save(model.state_dict(), ...)."
            ) from error
        raise ValueError(
            f"{path} is no complete checkpoint of torch.save ({first_line(error)}): the file is cut short, or "
            "something else."
        ) from error


def load_folder(folder: str | Path) -> dict[str, Tensor]:
    """Loads the tensors of a model folder of transformers: safetensors or torch files, in shards or not.

    Raises:
        ValueError: If there are no weights, or they are broken.
    """
    folder = Path(folder)
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return load_tensors(folder / name)
        index = folder / f"{name}.index.json"
        if index.is_file():
            files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            return {key: value for file in files for key, value in load_tensors(folder / file).items()}
    raise ValueError(f"{folder} has no model.safetensors and no pytorch_model.bin.")


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message."""
    lines = str(error).strip().splitlines()
    return lines[0].strip().rstrip(".") if lines else type(error).__name__
