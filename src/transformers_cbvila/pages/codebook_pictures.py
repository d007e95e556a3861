"""Pictures of visual words, from arrays.

Shapes: H, W pixels, K codes.
"""

from __future__ import annotations

from colorsys import hsv_to_rgb

import numpy as np
from PIL import Image, ImageDraw

_CROP_SIDE = 60  # pixels of a drawn crop, about: it is enlarged a whole number of times
_GAP = 4
_FRAME = (230, 45, 45, 255)
_EDGE = (150, 158, 168, 120)


def patch_strip(crops: list[np.ndarray], patch_size: int, columns: int) -> Image.Image:
    """Crops of a patch with its neighbours, side by side, the patch framed.

    Args:
        crops: (3p, 3p, 4) uint8 RGBA, the patch of p pixels in the middle.
        patch_size: p.
        columns: How many crops the strip has room for, so that those of all codes have one scale.
    """
    zoom = max(1, round(_CROP_SIDE / (3 * patch_size)))
    side, patch = 3 * patch_size * zoom, patch_size * zoom
    strip = Image.new("RGBA", (columns * (side + _GAP) - _GAP, side))
    draw = ImageDraw.Draw(strip)
    for column, crop in enumerate(crops):
        left = column * (side + _GAP)
        strip.paste(Image.fromarray(crop).resize((side, side), Image.Resampling.NEAREST), (left, 0))
        draw.rectangle((left, 0, left + side - 1, side - 1), outline=_EDGE)
        # around the patch, not on it
        draw.rectangle((left + patch - 2, patch - 2, left + 2 * patch + 1, 2 * patch + 1), outline=_FRAME, width=2)
    return strip


def crop_with_neighbours(image: np.ndarray, patch: int, patch_size: int) -> np.ndarray:
    """A patch of a picture (H, W, 3) with the 8 around it, (3p, 3p, 4); transparent beyond the picture's edge."""
    row, column = divmod(patch, image.shape[1] // patch_size)
    opaque = np.concatenate([image, np.full_like(image[..., :1], 255)], axis=-1)
    padded = np.pad(opaque, ((patch_size, patch_size), (patch_size, patch_size), (0, 0)))
    top, left = row * patch_size, column * patch_size
    return padded[top : top + 3 * patch_size, left : left + 3 * patch_size]


def index_map(indices: np.ndarray, grid: tuple[int, int], colours: np.ndarray) -> Image.Image:
    """Codes (N,) of an image as its colours (K, 3), 0 to 1: one pixel per patch, to be enlarged where it is shown."""
    return Image.fromarray((colours[indices].reshape(*grid, 3) * 255).round().astype(np.uint8))


def distinct_colours(counts: np.ndarray) -> np.ndarray:
    """A colour (K, 3), 0 to 1, for each of the codes, as far from each other as possible for the most used ones."""
    colours = np.zeros((len(counts), 3))
    for rank, code in enumerate(np.argsort(-counts, kind="stable").tolist()):
        # the golden angle never meets itself; brightness tells neighbouring hues apart
        hue, shade = rank * 0.61803398875 % 1.0, rank % 3
        colours[code] = hsv_to_rgb(hue, (0.85, 0.55, 0.75)[shade], (0.95, 0.85, 0.6)[shade])
    return colours
