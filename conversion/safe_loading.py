"""Reads the tensors of a checkpoint, and never runs what is in it."""

import json
import re
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor


def load_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file that `torch.save` or safetensors wrote, bare or under the key `model` or `state_dict`.

    Raises:
        ValueError: If the file is broken, no checkpoint, or asks to run code; the message is one sentence.
        FileNotFoundError: If there is none.
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


def _unpickled(path: Path):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it is about to refuse
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
    """The tensors of a model folder as transformers writes one: safetensors or torch's, whole or in shards.

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
    """What an error says, up to the end of its first line."""
    lines = str(error).strip().splitlines()
    return lines[0].strip().rstrip(".") if lines else type(error).__name__
