"""Draws visual words and their patches.

Shapes: H, W pixels, K codes.
"""

from __future__ import annotations

from colorsys import hsv_to_rgb

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_CROP_SIDE = 60  # approximate pixels of a drawn crop, which is enlarged by a whole number
_GAP = 4
_FRAME = (230, 45, 45, 255)
_EDGE = (150, 158, 168, 120)
_GRID = (150, 158, 168)
_NUMBERED_SIDE, _NUMBERED_PATCH = 384, 40  # approximate pixels of the numbered image, least pixels of its patches
_OUTLINED_SIDE = 272  # about twice the size on the page


def patch_strip(crops: list[np.ndarray], patch_size: int, columns: int) -> Image.Image:
    """Draws crops of patches with their neighbours in a grid, with a frame around each patch.

    Args:
        crops: (3p, 3p, 4) uint8 RGBA, the patch of p pixels in the middle.
        patch_size: p.
        columns: Crops per line; the same for all codes, so that they have one scale.
    """
    zoom = max(1, round(_CROP_SIDE / (3 * patch_size)))
    side, patch = 3 * patch_size * zoom, patch_size * zoom
    lines = max(1, -(-len(crops) // columns))
    strip = Image.new("RGBA", (columns * (side + _GAP) - _GAP, lines * (side + _GAP) - _GAP))
    draw = ImageDraw.Draw(strip)
    for place, crop in enumerate(crops):
        top, left = (step * (side + _GAP) for step in divmod(place, columns))
        strip.paste(Image.fromarray(crop).resize((side, side), Image.Resampling.NEAREST), (left, top))
        draw.rectangle((left, top, left + side - 1, top + side - 1), outline=_EDGE)
        # outside the patch
        frame = (left + patch - 2, top + patch - 2, left + 2 * patch + 1, top + 2 * patch + 1)
        draw.rectangle(frame, outline=_FRAME, width=2)
    return strip


def side_by_side(images: list[np.ndarray]) -> Image.Image:
    """Draws images (H, W, 3) of one size in a line, with an edge around each."""
    height, width = images[0].shape[:2]
    line = Image.new("RGBA", (len(images) * (width + _GAP) - _GAP, height))
    draw = ImageDraw.Draw(line)
    for place, image in enumerate(images):
        left = place * (width + _GAP)
        line.paste(Image.fromarray(image), (left, 0))
        draw.rectangle((left, 0, left + width - 1, height - 1), outline=_EDGE)
    return line


def numbered_patches(image: np.ndarray, grid: tuple[int, int]) -> Image.Image:
    """Draws an image (H, W, 3), enlarged, with the edges of its patches and their numbers, from 1 in reading order."""
    rows, columns = grid
    side = max(_NUMBERED_PATCH, -(-_NUMBERED_SIDE // columns))
    drawn = Image.fromarray(image).resize((columns * side, rows * side), Image.Resampling.NEAREST)
    draw, font = ImageDraw.Draw(drawn), ImageFont.load_default(side / 2.6)
    for number in range(rows * columns):
        top, left = (step * side for step in divmod(number, columns))
        draw.rectangle((left, top, left + side, top + side), outline=_GRID)
        middle = (left + side / 2, top + side / 2)
        draw.text(middle, str(number + 1), "white", font, anchor="mm", stroke_width=2, stroke_fill="black")
    return drawn


def outlined_patches(image: np.ndarray, bool_masked_pos: np.ndarray, patch_size: int) -> Image.Image:
    """Draws an image (H, W, 3), enlarged, with the edges of its masked patches (N,)."""
    height, width = image.shape[:2]
    zoom = max(1, round(_OUTLINED_SIDE / max(height, width)))
    drawn = Image.fromarray(image).resize((width * zoom, height * zoom), Image.Resampling.NEAREST)
    draw, side = ImageDraw.Draw(drawn), patch_size * zoom
    for patch in np.flatnonzero(bool_masked_pos).tolist():
        top, left = (step * side for step in divmod(patch, width // patch_size))
        draw.rectangle((left, top, left + side - 1, top + side - 1), outline=_GRID)
    return drawn


def crop_with_neighbours(image: np.ndarray, patch: int, patch_size: int) -> np.ndarray:
    """Returns a patch of an image (H, W, 3) with the 8 around it, (3p, 3p, 4); transparent beyond the image's edge."""
    row, column = divmod(patch, image.shape[1] // patch_size)
    opaque = np.concatenate([image, np.full_like(image[..., :1], 255)], axis=-1)
    padded = np.pad(opaque, ((patch_size, patch_size), (patch_size, patch_size), (0, 0)))
    top, left = row * patch_size, column * patch_size
    return padded[top : top + 3 * patch_size, left : left + 3 * patch_size]


def index_map(indices: np.ndarray, grid: tuple[int, int], colours: np.ndarray) -> Image.Image:
    """Draws the codes (N,) of an image in their colours (K, 3), 0 to 1, with one pixel per patch."""
    return Image.fromarray((colours[indices].reshape(*grid, 3) * 255).round().astype(np.uint8))


def distinct_colours(counts: np.ndarray) -> np.ndarray:
    """Returns a colour (K, 3), 0 to 1, for each code; those of the most used codes differ the most."""
    colours = np.zeros((len(counts), 3))
    for rank, code in enumerate(np.argsort(-counts, kind="stable").tolist()):
        # multiples of the golden angle never repeat; brightness separates neighbouring hues
        hue, shade = rank * 0.61803398875 % 1.0, rank % 3
        colours[code] = hsv_to_rgb(hue, (0.85, 0.55, 0.75)[shade], (0.95, 0.85, 0.6)[shade])
    return colours
