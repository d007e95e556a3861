"""Loads a repository without this package and saves the outputs of its model.

Run as a script in a process of its own: python -P fresh_process.py SPEC.json. The package cannot be imported there, so
that all code comes from the repository. [`outputs_of`] also computes the outputs of the original.
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

_TEXT = "what color is it"


def main(path: str) -> None:
    """Loads the repository that a SPEC.json names, and saves its outputs to the file that it names."""
    spec = json.loads(Path(path).read_text(encoding="utf-8"))
    options = {"trust_remote_code": True, "revision": spec["revision"]}
    source = spec["source"]
    # Kept outside the repository, and this process may have no access to the Hub.
    apart = {} if spec["language_model"] is None else {"language_model": spec["language_model"]}
    model = getattr(transformers, spec["auto_class"]).from_pretrained(source, **options, **apart)
    processor = transformers.AutoProcessor.from_pretrained(source, **options)
    ask = None
    if spec["task"] is not None:
        ask = transformers.pipeline(spec["task"], model=source, **options)
    save_file(outputs_of(model, processor, ask, load_file(spec["inputs"])), spec["outputs"])


def outputs_of(
    model: Any, processor: Any, ask: Callable[..., Any] | None, inputs: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Returns by name every floating-point output of the model, the outputs of the processor, and pipeline scores.

    Args:
        model: The model.
        processor: Its processor.
        ask: Its pipeline, if it has one.
        inputs: The model's inputs.
    """
    with torch.no_grad():
        output = model.eval()(**inputs)
    given = {f"model.{name}": value.contiguous().clone() for name, value in _floats(dict(output), "")}
    image = Image.fromarray(np.arange(40 * 30 * 3, dtype=np.uint32).reshape(40, 30, 3).astype(np.uint8))
    text = f"{processor.image_token} {_TEXT}" if hasattr(processor, "image_token") else _TEXT
    for name, value in processor(images=image, text=text, return_tensors="pt").items():
        given[f"processor.{name}"] = value.contiguous()
    if ask is not None:
        answers = [*ask(image, _TEXT), *ask(image, _TEXT, answers=["yes", "no"])]
        given["pipeline.scores"] = torch.tensor([answer["score"] for answer in answers])
    return given


def _floats(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield name, value
    elif isinstance(value, (dict, tuple, list)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from _floats(item, f"{name}.{key}".lstrip("."))


if __name__ == "__main__":
    sys.modules["transformers_cbvila"] = None  # type: ignore[assignment]  # makes an import of it fail
    main(sys.argv[1])
