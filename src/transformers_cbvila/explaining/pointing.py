"""The pointing game on scenes: whether a word looks most at the object that it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from ..data.scenes.words import COLORS, SHAPES, SYNONYMS
from ..model.processing_cbvila import CBViLAProcessor
from .explain import explain_batch

PARTS = ("colour", "shape")
_COLOURS = {word: name for name in COLORS for word in SYNONYMS.get(name, (name,))}
_SHAPES = {word: name for name in SHAPES for word in SYNONYMS.get(name, (name,))}


class NamedObject(NamedTuple):
    """A word that names an object: its place among the words, which part of the name it is, and the object's box."""

    place: int
    part: str
    box: tuple[float, ...]


@dataclass
class Pointing:
    """Outcomes of the pointing game, one for each word that names an object.

    Attributes:
        parts: Which part of the name each word is, of `PARTS`.
        images: The row of each word's image.
        hits: 1 if the centre of the patch at which the word looks most is in the object's box, else 0; of several
            patches that are equal, their mean.
        of_random_patch: The share of patches whose centre is in the box: what a random patch would reach.
        of_centre: Whether the centre of the image is in the box.
    """

    parts: np.ndarray
    images: np.ndarray
    hits: np.ndarray
    of_random_patch: np.ndarray
    of_centre: np.ndarray

    @property
    def best(self) -> float:
        """What the best map would reach: boxes that are smaller than patches may have no centre in them."""
        return float((self.of_random_patch > 0).mean())


def named_objects(words: Sequence[str], objects: Sequence[Mapping[str, Any]]) -> list[NamedObject]:
    """Returns the words of a caption that name an object, which are a colour and the shape after it.

    Args:
        words: The words of the caption in order.
        objects: Objects as rows of scenes have them, no two of one colour and shape.
    """
    boxes = {(item["colour"], item["shape"]): tuple(item["box"]) for item in objects}
    found = []
    for place, (first, second) in enumerate(zip(words, words[1:], strict=False)):
        box = boxes.get((_COLOURS.get(first.lower()), _SHAPES.get(second.lower())))
        if box is not None:
            found += [NamedObject(place, PARTS[0], box), NamedObject(place + 1, PARTS[1], box)]
    return found


def patches_in_box(box: Sequence[float], image_size: tuple[int, int], grid: tuple[int, int]) -> np.ndarray:
    """Returns which patches (rows, columns) have their centre in a box.

    Args:
        box: Left, top, right and bottom in pixels of the image.
        image_size: Width and height of the image.
        grid: Rows and columns of patches, which cover the whole image.
    """
    down = (np.arange(grid[0]) + 0.5) * image_size[1] / grid[0]
    across = (np.arange(grid[1]) + 0.5) * image_size[0] / grid[1]
    left, top, right, bottom = box
    return ((down >= top) & (down < bottom))[:, None] & ((across >= left) & (across < right))[None]


def play_pointing_game(
    model: Any,
    processor: CBViLAProcessor,
    rows: Sequence[Mapping[str, Any]],
    batch_size: int = 32,
    progress: bool = True,
    **options: Any,
) -> Pointing:
    """Plays the pointing game on rows of scenes with their true captions.

    Args:
        model: A model whose matching can be explained.
        processor: Its processor, which resizes whole images.
        rows: Rows with `image`, `captions`, of which the first is explained, and `objects`.
        batch_size: Images at a time.
        progress: Whether to show a progress bar.
        options: `method` and `layer` of [`explain`].

    Raises:
        ValueError: If no caption names an object.
    """
    found: list[tuple[Any, ...]] = []
    for start in tqdm(range(0, len(rows), batch_size), desc="Pointing", disable=not progress):
        chunk = [rows[row] for row in range(start, min(start + batch_size, len(rows)))]
        images, texts = [row["image"] for row in chunk], [row["captions"][0] for row in chunk]
        explained = explain_batch(model, processor, images, texts, **options)
        for number, (row, explanation) in enumerate(zip(chunk, explained, strict=True), start):
            for named in named_objects(explanation.words, row["objects"]):
                looks = explanation.maps[named.place]
                inside = patches_in_box(named.box, row["image"].size, looks.shape)
                found.append((named.part, number, _share_of_maxima(looks, inside), *_floors(row, named.box, inside)))
    if not found:
        raise ValueError(f"No caption of the {len(rows)} rows names an object by its colour and shape.")
    return Pointing(*(np.array(column) for column in zip(*found, strict=True)))


def _share_of_maxima(looks: np.ndarray, inside: np.ndarray) -> float:
    """Returns 1 if the greatest patch is inside; of several equal ones, the share that is."""
    return float(inside[looks == looks.max()].mean())


def _floors(row: Mapping[str, Any], box: Sequence[float], inside: np.ndarray) -> tuple[float, float]:
    """Returns what a random patch reaches, and what the centre of the image does."""
    centre = patches_in_box(box, row["image"].size, (1, 1))
    return float(inside.mean()), float(centre.mean())
