"""Random views of training images: crops, flips, rotations, colour changes and distortions."""

from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from .distortions import DISTORTIONS, LABEL_DISTORTIONS, inked

_UNKNOWN = -1  # the class of pixels of a label map beyond the image
_WHITE = 255.0
_BETWEEN_CHANNELS = 2 / 3  # how much of a channel's own change another channel's share changes by


@dataclass
class ImageViews:
    """Draws views of images. An option that is off takes nothing from the generator.

    Args:
        crop_scale: Smallest share of the image's area that a random crop keeps; 1.0 takes the whole image.
        max_crop_scale: Largest area of a crop, relative to the image's. Above 1 views may also show the image smaller
            than it is, on a ground of the colour of its corner.
        flip: Whether to mirror every other image.
        rotation: Largest rotation in degrees, either way; uncovered pixels have the colour of the image's corner.
        color_jitter: Standard deviation of the noise on the diagonal of a colour matrix, around the identity; two
            thirds of it off the diagonal. White stays white, so that drawings keep their ground.
        distortions: How many distortions are drawn, each applied with probability 1/2: RandAugment as in ALBEF, with
            contrast, brightness, sharpness, shear, shift and rotation. Contrast is stretched by channel, which hardly
            changes the colours of photographs but does those of flat drawings.
        outlines: Share of images whose edges are drawn black, as in inked drawings. It is for drawings of about the
            model's size: in a photograph a quarter of all pixels is at an edge.

    Raises:
        ValueError: If a value is out of range.
    """

    crop_scale: float = 1.0
    max_crop_scale: float = 1.0
    flip: bool = False
    rotation: float = 0.0
    color_jitter: float = 0.0
    distortions: int = 0
    outlines: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.crop_scale <= 1:
            raise ValueError(
                f"crop_scale={self.crop_scale} must be in (0, 1], the smallest share of the image to keep."
            )
        if not 1 <= self.max_crop_scale <= 16:
            raise ValueError(
                f"max_crop_scale={self.max_crop_scale} must be in [1, 16], the largest area of a crop in areas of the "
                "image; 1 never shows what is drawn smaller."
            )
        if not 0 <= self.outlines <= 1:
            raise ValueError(f"outlines={self.outlines} must be in [0, 1], the share of images with black edges.")
        if not 0 <= self.rotation <= 180:
            raise ValueError(f"rotation={self.rotation} must be in [0, 180], the largest turn in degrees.")
        if not 0 <= self.color_jitter <= 1:
            raise ValueError(f"color_jitter={self.color_jitter} must be in [0, 1], a deviation of colour shares.")
        if self.distortions < 0:
            raise ValueError(f"distortions={self.distortions} is negative; 0 leaves images as they are.")

    def draw(self, image: Image.Image, generator: torch.Generator) -> Image.Image:
        """Returns a view of an RGB image."""
        return self.draw_with_labels(image, None, generator)[0]

    def draw_with_labels(
        self, image: Image.Image, labels: Image.Image | None, generator: torch.Generator
    ) -> tuple[Image.Image, Image.Image | None]:
        """Returns a view of an RGB image, and the same view of its label map (mode "I"), if it has one."""
        # read before edges are drawn
        ground = image.getpixel((0, 0)) if self.rotation > 0 or self.max_crop_scale > 1 else None
        if self.outlines > 0 and uniform(generator) < self.outlines:
            image = inked(image)
        if self.rotation > 0:
            angle = uniform(generator, -self.rotation, self.rotation)
            image = image.rotate(angle, Image.Resampling.BILINEAR, fillcolor=ground)
            labels = labels and labels.rotate(angle, Image.Resampling.NEAREST, fillcolor=_UNKNOWN)
        if self.crop_scale < 1 or self.max_crop_scale > 1:
            box = self.crop_box(image.size, generator)
            image, labels = _cut(image, box, ground), labels and _cut(labels, box, _UNKNOWN)
        if self.flip and uniform(generator) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            labels = labels and labels.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.color_jitter > 0:
            image = image.convert("RGB", self.color_matrix(generator))
        for _ in range(self.distortions):
            kind = integer(generator, len(DISTORTIONS))
            if uniform(generator) < 0.5:
                sign = 1.0 if uniform(generator) < 0.5 else -1.0
                image, labels = DISTORTIONS[kind](image, sign), labels and LABEL_DISTORTIONS[kind](labels, sign)
        return image, labels

    @property
    def are_all_equal(self) -> bool:
        """Whether every view of an image is the image itself."""
        return self == ImageViews()

    def crop_box(self, size: tuple[int, int], generator: torch.Generator) -> tuple[int, int, int, int]:
        """Returns a box of `crop_scale` to `max_crop_scale` of the area, at 3:4 to 4:3 of the image's aspect ratio.

        Along an axis where the box is larger than the image, the whole image is in it.
        """
        width, height = size
        side = uniform(generator, self.crop_scale, self.max_crop_scale) ** 0.5
        stretch = uniform(generator, 0.75, 4 / 3) ** 0.5
        w, h = max(1, round(width * side * stretch)), max(1, round(height * side / stretch))
        if self.max_crop_scale == 1:
            w, h = min(w, width), min(h, height)
        left, top = _place(width - w, generator), _place(height - h, generator)
        return left, top, left + w, top + h

    def color_matrix(self, generator: torch.Generator) -> tuple[float, ...]:
        """Returns three rows of three shares and a summand, as `PIL.Image.convert` takes them; white stays white."""
        scale = self.color_jitter * (_BETWEEN_CHANNELS + (1 - _BETWEEN_CHANNELS) * torch.eye(3))
        shares = torch.eye(3) + scale * torch.randn(3, 3, generator=generator)
        summands = _WHITE * (1 - shares.sum(dim=1, keepdim=True))
        return tuple(torch.cat([shares, summands], dim=1).flatten().tolist())


def _place(room: int, generator: torch.Generator) -> int:
    """Returns where a box begins that leaves so much room in an image, or exceeds it if `room` is negative."""
    place = integer(generator, abs(room) + 1)
    return place if room >= 0 else -place


def _cut(image: Image.Image, box: tuple[int, int, int, int], ground: Any) -> Image.Image:
    """Returns what is in the box, with the ground beyond the image."""
    left, top, right, bottom = box
    if min(left, top) >= 0 and right <= image.width and bottom <= image.height:
        return image.crop(box)
    view = Image.new(image.mode, (right - left, bottom - top), ground)
    view.paste(image, (-left, -top))
    return view


def integer(generator: torch.Generator, end: int) -> int:
    """Draws a whole number from 0 to `end` - 1."""
    return int(torch.randint(end, (), generator=generator))


def uniform(generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    """Draws a number from `low` to `high`."""
    return low + (high - low) * float(torch.rand((), generator=generator))
