"""The shapes as masks. Only sums and products are computed, so that every machine gets the same pixels."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

_FINER = 4  # points per pixel and axis
_INSIDE_RING = 0.3  # square of its inner radius
_ARM = 1 / 3  # half the width of a cross's arm
# Directions of a star's tips; a line through two tips with one between is this far from the centre.
_TIPS = (
    (0.0, 1.0),
    (0.9510565, 0.3090170),
    (0.5877853, -0.8090170),
    (-0.5877853, -0.8090170),
    (-0.9510565, 0.3090170),
)
_LINE = 0.3090170


@lru_cache(maxsize=1024)
def mask(shape: str, side: int) -> Image.Image:
    """Returns how much of each pixel of a box a shape covers, from 0 to 255."""
    inside = _inside(shape, side * _FINER).reshape(side, _FINER, side, _FINER)
    covered = inside.sum(axis=(1, 3), dtype=np.int64)
    return Image.fromarray((covered * 255 // _FINER**2).astype(np.uint8))


@lru_cache(maxsize=1024)
def covers(shape: str, side: int) -> np.ndarray:
    """Returns which pixels of a box belong to a shape: those that it covers at least half of."""
    return np.asarray(mask(shape, side)) >= 127


def _inside(shape: str, points: int) -> np.ndarray:
    """Returns which points of a grid over a box are inside a shape."""
    line = (2 * np.arange(points) + 1 - points) / points
    across, down = line[None, :], line[:, None]
    match shape:
        case "circle":
            return across * across + down * down <= 1
        case "ring":
            radius = across * across + down * down
            return (radius <= 1) & (radius >= _INSIDE_RING)
        case "square":
            return np.ones((points, points), dtype=bool)
        case "triangle":
            return 2 * np.abs(across) <= down + 1
        case "diamond":
            return np.abs(across) + np.abs(down) <= 1
        case "cross":
            return (np.abs(across) <= _ARM) | (np.abs(down) <= _ARM)
        case "star":
            return _inside_star(across, down)
    raise ValueError(f"There is no shape {shape!r}.")


def _inside_star(across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Returns the points that lie outside of one line at most."""
    right, up = across * _TIPS[1][0], (_TIPS[0][1] + _TIPS[2][1]) / 2 - down * (_TIPS[0][1] - _TIPS[2][1]) / 2
    outside = sum((right * x + up * y > _LINE).astype(np.uint8) for x, y in _TIPS)
    return np.asarray(outside) <= 1
