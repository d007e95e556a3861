"""The pictures of a page as files: small ones to be seen, their embeddings, and the states that texts attend to.

Shapes: P pictures, E embedding width, S visual tokens, D width of a state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..app.pictures import Picture, Pictures
from ..export.graphs import ImageEncoder
from ..onnx_runtime.images import pixel_values
from ..output_files import write_json

_BATCH = 32
_STATES = "states"  # folder with a file for each picture
_SIDE = 320  # pixels of the longer side of a picture on the page, at most


def write_gallery(
    pictures: Pictures, model: Any, image_options: Mapping[str, Any], with_states: bool, folder: Path
) -> None:
    """Encodes pictures and writes them into an empty folder, as static_page/js/gallery.js reads them.

    Args:
        pictures: The pictures.
        model: The model, on the CPU and in evaluation mode.
        image_options: The entry `images` of the description of its export.
        with_states: Whether to write states, which matching needs.
        folder: The folder.
    """
    items, embeds, shape = [], [], None
    if with_states:
        (folder / _STATES).mkdir()
    for start in range(0, len(pictures.items), _BATCH):
        batch = pictures.items[start : start + _BATCH]
        encoded = _encoded(model, [picture.source for picture in batch], image_options)
        embeds.append(encoded["image_embeds"])
        for number, (picture, states) in enumerate(zip(batch, encoded["image_states"], strict=True), start):
            items.append({"name": picture.name, "file": _write_small(picture, number, pictures.are_scenes, folder)})
            if with_states:
                shape = list(states.shape)
                _write_numbers(folder / _STATES / f"{number}.bin", states)
    _write_numbers(folder / "embeds.bin", np.concatenate(embeds))
    write_json(folder / "gallery.json", {"items": items, "states_shape": shape})


def _encoded(model: Any, images: Sequence[Any], options: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns `image_embeds` (P, E) and `image_states` (P, S, D), as the exported image encoder would give them."""
    with torch.no_grad():
        outputs = ImageEncoder(model)(torch.from_numpy(pixel_values(images, options)))
    return {name: outputs[name].numpy() for name in ("image_embeds", "image_states")}


def _write_small(picture: Picture, number: int, is_drawn: bool, folder: Path) -> str:
    """Writes a picture as it is seen on the page, under a number for its name; returns the file's name."""
    small = picture.image.copy()
    small.thumbnail((_SIDE, _SIDE))
    name = f"{number}.{'png' if is_drawn else 'jpg'}"
    small.save(folder / name, **({"optimize": True} if is_drawn else {"quality": 85}))
    return name


def _write_numbers(path: Path, numbers: np.ndarray) -> None:
    """Writes floating-point numbers as browsers read them: four bytes each, the lowest first."""
    path.write_bytes(numbers.astype("<f4").tobytes())
