"""Draws a scene: its image, and its label map."""

from __future__ import annotations

import numpy as np
from PIL import Image

from .draws import Draws
from .options import STYLES
from .outlines import covers, mask
from .scene import Scene
from .words import COLORS

GROUND = (240, 240, 240)
SCREEN = (150, 150, 150)
SCREEN_LABEL = 255
_BLANK = (128, 128, 128)
_STRIPE = (205, 205, 205)
_NOISE = 48  # grey levels that noise takes from the ground, and from objects, at most


def draw(scene: Scene, size: int, style: str, draws: Draws) -> Image.Image:
    """Returns the image of a scene.

    Args:
        scene: The scene.
        size: Width and height in pixels.
        style: One of `STYLES`.
        draws: For what the style leaves open.
    """
    if style == "mixed":
        style = draws.choice(STYLES[:-1])
    image = _striped(size, draws) if style == "striped" else Image.new("RGB", (size, size), GROUND)
    for item in scene.objects:
        box = item.box
        image.paste(
            COLORS[item.kind.color],
            (box.left, box.top, box.right, box.bottom),
            mask(item.kind.shape, box.right - box.left),
        )
    if scene.screen is not None:
        image.paste(SCREEN, (*scene.screen,))
    return _noisy(image, draws) if style == "noisy" else image


def blank(size: int) -> Image.Image:
    """Returns a grey image, on which nothing is to be seen."""
    return Image.new("RGB", (size, size), _BLANK)


def label_map(scene: Scene, size: int) -> np.ndarray:
    """Returns to which object each pixel belongs.

    Returns:
        `uint8` of shape (size, size): 0 for the ground, i for object i of the scene counted from 1, 255 for a screen.
    """
    labels = np.zeros((size, size), dtype=np.uint8)
    for number, item in enumerate(scene.objects, start=1):
        left, top, right, bottom = item.box
        labels[top:bottom, left:right][covers(item.kind.shape, right - left)] = number
    if scene.screen is not None:
        left, top, right, bottom = scene.screen
        labels[top:bottom, left:right] = SCREEN_LABEL
    return labels


def _striped(size: int, draws: Draws) -> Image.Image:
    """Returns a ground of stripes of one width, across, down or along a diagonal."""
    width, phase = draws.between(size // 32 + 1, size // 8), draws.below(size)
    across, down = draws.choice(((1, 0), (0, 1), (1, 1), (1, -1)))
    line = np.arange(size)
    stripes = (across * line[None, :] + down * line[:, None] + phase) // width % 2
    return Image.fromarray(np.array([GROUND, _STRIPE], dtype=np.uint8)[np.broadcast_to(stripes, (size, size))])


def _noisy(image: Image.Image, draws: Draws) -> Image.Image:
    """Returns an image with every pixel darker by a grey level of its own."""
    size = image.width
    noise = np.frombuffer(draws.noise(size * size), dtype=np.uint8).reshape(size, size, 1)
    pixels = np.asarray(image).astype(np.int16) - noise // np.uint8(256 // _NOISE)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
