"""How the images of a row lie in its columns."""

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image


class ImageLayout(NamedTuple):
    """What the images of a row are made of.

    Attributes:
        several: Whether rows have `images`, a list, instead of `image`.
        parts: Images of equal width that each image file is split into.
        gap: What lies between them, as a share of the file's width.
    """

    several: bool = False
    parts: int = 1
    gap: float = 0.0

    def split(self, images: Sequence[Image.Image]) -> list[Image.Image]:
        """Returns the images of a row, from those of its files."""
        if self.parts == 1:
            return list(images)
        return [part for image in images for part in split_horizontally(image, self.parts, self.gap)]


def split_horizontally(image: Image.Image, parts: int, gap: float = 0.0) -> list[Image.Image]:
    """Splits an image into images of equal width, from left to right.

    Args:
        image: The image.
        parts: How many images come out.
        gap: What lies between two of them, as a share of the image's width.

    Raises:
        ValueError: If it is too narrow for that.
    """
    step = image.width * (1 + gap) / parts
    width = step - image.width * gap
    boxes = [(round(i * step), 0, round(i * step + width), image.height) for i in range(parts)]
    if any(left >= right for left, _, right, _ in boxes):
        raise ValueError(f"its picture is {image.width} pixels wide and cannot be cut into {parts} parts")
    return [image.crop(box) for box in boxes]
