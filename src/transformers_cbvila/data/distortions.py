"""Distortions of images: RandAugment's, as ALBEF uses them, and black edges."""

from collections.abc import Callable
from typing import Any

from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps

_ENHANCEMENT = 1.36  # brightness and sharpness, level 7 of 10
_SHEAR = 0.21
_SHIFT = 7  # pixels, whatever the size
_TURN = 21  # degrees
_GREY = (128, 128, 128)
_EDGE = 48  # of 255: by how much the lightness of neighbours differs across an edge


def _moved(image: Image.Image, across: tuple[float, float], down: tuple[float, float]) -> Image.Image:
    """Returns the image sheared and shifted by (shear, shift) of rows and of columns; uncovered pixels are grey."""
    (shear_x, shift_x), (shear_y, shift_y) = across, down
    matrix = (1.0, shear_x, shift_x, shear_y, 1.0, shift_y)
    return image.transform(image.size, Image.Transform.AFFINE, matrix, **_resampling(image))


def _resampling(image: Image.Image) -> dict[str, Any]:
    """Returns how pixels of an image or a label map (mode "I") are moved, and what is where none is."""
    if image.mode == "I":
        return {"resample": Image.Resampling.NEAREST, "fillcolor": -1}
    return {"resample": Image.Resampling.BILINEAR, "fillcolor": _GREY}


def inked(image: Image.Image) -> Image.Image:
    """Returns the RGB image with a black line, two pixels wide, along its edges, where lightness changes."""
    range_around = ImageChops.subtract(
        image.filter(ImageFilter.MaxFilter(3)), image.filter(ImageFilter.MinFilter(3))
    ).convert("L")
    black = Image.new("RGB", image.size)
    return Image.composite(black, image, range_around.point(lambda value: 255 * (value > _EDGE)))


# RandAugment's without those that change colours. Each takes an image and a sign, the direction for those that
# have one.
DISTORTIONS: tuple[Callable[[Image.Image, float], Image.Image], ...] = (
    lambda image, sign: image,
    lambda image, sign: ImageOps.autocontrast(image),
    lambda image, sign: ImageOps.equalize(image),
    lambda image, sign: ImageEnhance.Brightness(image).enhance(_ENHANCEMENT),
    lambda image, sign: ImageEnhance.Sharpness(image).enhance(_ENHANCEMENT),
    lambda image, sign: _moved(image, (sign * _SHEAR, 0.0), (0.0, 0.0)),
    lambda image, sign: _moved(image, (0.0, 0.0), (sign * _SHEAR, 0.0)),
    lambda image, sign: _moved(image, (0.0, sign * _SHIFT), (0.0, 0.0)),
    lambda image, sign: _moved(image, (0.0, 0.0), (0.0, sign * _SHIFT)),
    lambda image, sign: image.rotate(sign * _TURN, **_resampling(image)),
)
# The same of a label map, which only moves.
LABEL_DISTORTIONS: tuple[Callable[[Image.Image, float], Image.Image], ...] = (
    *[lambda labels, sign: labels] * 5,
    *DISTORTIONS[5:],
)
