"""What training sees of an image: a random crop, its mirror image, and distortions that leave its content alone."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image, ImageEnhance, ImageOps

_ENHANCEMENT = 1.36  # brightness and sharpness, level 7 of 10 as in ALBEF
_SHEAR = 0.21
_SHIFT = 7  # pixels, whatever the size
_TURN = 21  # degrees
_GREY = (128, 128, 128)


def integer(generator: torch.Generator, end: int) -> int:
    """A whole number from 0 to end - 1."""
    return int(torch.randint(end, (), generator=generator))


def uniform(generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    """A number from low to high."""
    return low + (high - low) * float(torch.rand((), generator=generator))


@dataclass
class ImageViews:
    """Draws one view of an image.

    Args:
        crop_scale: Smallest share of the image's area that a random crop keeps; 1.0 takes the whole image.
        flip: Whether to mirror every other image.
        distortions: How many distortions are drawn, each of which happens every other time: RandAugment as ALBEF has
            it, with contrast, brightness, sharpness, shear, shift and rotation, and nothing that changes colours.
    """

    crop_scale: float = 1.0
    flip: bool = False
    distortions: int = 0

    def __post_init__(self):
        if not 0 < self.crop_scale <= 1:
            raise ValueError(
                f"crop_scale={self.crop_scale} must be in (0, 1], the smallest share of the image to keep."
            )
        if self.distortions < 0:
            raise ValueError(f"distortions={self.distortions} is negative; 0 leaves images as they are.")

    def view(self, image: Image.Image, generator: torch.Generator) -> Image.Image:
        """A view of an RGB image."""
        if self.crop_scale < 1:
            image = image.crop(self.crop_box(image.size, generator))
        if self.flip and uniform(generator) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for _ in range(self.distortions):
            distort = _DISTORTIONS[integer(generator, len(_DISTORTIONS))]
            if uniform(generator) < 0.5:
                image = distort(image, 1.0 if uniform(generator) < 0.5 else -1.0)
        return image

    def crop_box(self, size: tuple[int, int], generator: torch.Generator) -> tuple[int, int, int, int]:
        """A box of at least `crop_scale` of the area, with its aspect ratio within 3:4 to 4:3 of the image's."""
        width, height = size
        side = uniform(generator, self.crop_scale, 1.0) ** 0.5
        stretch = uniform(generator, 0.75, 4 / 3) ** 0.5
        w = max(1, min(width, round(width * side * stretch)))
        h = max(1, min(height, round(height * side / stretch)))
        left, top = integer(generator, width - w + 1), integer(generator, height - h + 1)
        return left, top, left + w, top + h


def _moved(image: Image.Image, across: tuple[float, float], down: tuple[float, float]) -> Image.Image:
    """The image sheared and shifted: (shear, shift) of rows and of columns; grey where nothing is left."""
    (shear_x, shift_x), (shear_y, shift_y) = across, down
    matrix = (1.0, shear_x, shift_x, shear_y, 1.0, shift_y)
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR, fillcolor=_GREY
    )


# Each takes an image and a sign; those without a direction do not look at it.
_DISTORTIONS: tuple[Callable[[Image.Image, float], Image.Image], ...] = (
    lambda image, sign: image,
    lambda image, sign: ImageOps.autocontrast(image),
    lambda image, sign: ImageOps.equalize(image),
    lambda image, sign: ImageEnhance.Brightness(image).enhance(_ENHANCEMENT),
    lambda image, sign: ImageEnhance.Sharpness(image).enhance(_ENHANCEMENT),
    lambda image, sign: _moved(image, (sign * _SHEAR, 0.0), (0.0, 0.0)),
    lambda image, sign: _moved(image, (0.0, 0.0), (sign * _SHEAR, 0.0)),
    lambda image, sign: _moved(image, (0.0, sign * _SHIFT), (0.0, 0.0)),
    lambda image, sign: _moved(image, (0.0, 0.0), (0.0, sign * _SHIFT)),
    lambda image, sign: image.rotate(sign * _TURN, resample=Image.Resampling.BILINEAR, fillcolor=_GREY),
)
