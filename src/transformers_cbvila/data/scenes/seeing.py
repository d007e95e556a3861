"""Reads the objects of a scene off a picture, to judge what models draw. It knows the palette and the outlines alone.

Pictures may be blurred and off in colour. A pixel that is partly ground lies between the ground's colour and an
object's, so that the direction from the ground tells the colour. Regions of one colour get the shape and side whose
outline covers them best. Of flat ground, without a screen.

Shapes: S pixels a side.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from PIL import Image

from .drawing import GROUND
from .layout import SIDES
from .outlines import covers
from .scene import Box, SceneObject
from .words import COLORS, SHAPES, Kind

_FAINT = 40.0  # of 442: what differs less from the ground belongs to it
_LEAST = 24  # 64ths of 64ths of the picture: smaller regions are specks
_LIMIT = (SIDES["small"][1] + SIDES["big"][0]) / 2  # 64ths: sides above are big


def seen_objects(picture: Image.Image) -> list[dict[str, Any]]:
    """Returns the objects of a square picture, in the form of the column `objects`, from top to bottom.

    Raises:
        ValueError: If the picture is not square.
    """
    if picture.width != picture.height:
        raise ValueError(f"Scenes are square, and this picture has {picture.width} x {picture.height} pixels.")
    pixels = np.asarray(picture.convert("RGB")).astype(float)
    size = len(pixels)
    colors, shares = _colors(pixels)
    found = []
    for number, name in enumerate(COLORS):
        for region in _regions((colors == number) & (shares > 0.5)):
            if region.sum() * 64 * 64 >= _LEAST * size * size:
                found.append(_best_outline(region, name, size))
    return [item.record() for item in sorted(found, key=lambda item: item.box.top)]


def _colors(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns for each pixel (S, S, 3) the number of the colour that it is partly of, and which part that is."""
    toward = np.subtract(list(COLORS.values()), GROUND)
    differences = pixels - GROUND
    lengths = np.linalg.norm(differences, axis=-1)
    alike = differences @ (toward / np.linalg.norm(toward, axis=-1, keepdims=True)).T  # (S, S, colours)
    colors = alike.argmax(-1)
    shares = (differences * toward[colors]).sum(-1) / (toward[colors] ** 2).sum(-1)
    return colors, np.where(lengths > _FAINT, shares, 0.0)


def _regions(foreground: np.ndarray) -> list[np.ndarray]:
    """Returns the connected regions of a mask (S, S), each as a mask, neighbours by a side."""
    left, size = foreground.copy(), len(foreground)
    regions = []
    for start in map(tuple, np.argwhere(foreground)):
        if not left[start]:
            continue
        region, waiting = np.zeros_like(left), deque([start])
        left[start] = False
        while waiting:
            row, column = waiting.popleft()
            region[row, column] = True
            for near in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                if 0 <= near[0] < size and 0 <= near[1] < size and left[near]:
                    left[near] = False
                    waiting.append(near)
        regions.append(region)
    return regions


def _best_outline(covered: np.ndarray, color: str, size: int) -> SceneObject:
    """Returns the object whose outline has most in common with a region (S, S)."""
    rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
    extent = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    middle = (columns[0] + columns[-1] + 1) / 2, (rows[0] + rows[-1] + 1) / 2
    best, score = None, -1.0
    for side in range(max(2, extent - 2), min(size, extent + 3) + 1):
        for shape in SHAPES:
            for box in _boxes(middle, side, size):
                overlap = _overlap(covered, covers(shape, side), box)
                if overlap > score:
                    best, score = (shape, side, box), overlap
    assert best is not None
    shape, side, box = best
    return SceneObject(Kind(color, shape), "big" if side * 64 > _LIMIT * size else "small", box)


def _boxes(middle: tuple[float, float], side: int, size: int) -> list[Box]:
    """Returns the boxes of a side around a centre and a pixel beside it, moved into the picture."""
    lefts, tops = (
        sorted({min(max(round(at - side / 2) + shift, 0), size - side) for shift in (-1, 0, 1)}) for at in middle
    )
    return [Box(left, top, left + side, top + side) for left in lefts for top in tops]


def _overlap(covered: np.ndarray, outline: np.ndarray, box: Box) -> float:
    """Returns the intersection of a region with an outline in a box, over their union."""
    both = (covered[box.top : box.bottom, box.left : box.right] & outline).sum()
    return float(both / (covered.sum() + outline.sum() - both))
