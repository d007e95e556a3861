"""Image-caption pairs for pretraining: one row of a dataset, seen in one epoch, as one training example."""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from .epoch_rows import EpochRows


def stable_id(*parts: str | bytes) -> int:
    """A 63-bit integer that equal content has in every process and run."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return int.from_bytes(digest.digest(), "big") >> 1


class ImageTextPairs(EpochRows):
    """Draws, for a row and an epoch, a caption of the row (and some of its keywords) and a crop of its image.

    Every draw depends on (seed, epoch, row) only, never on global random state: a resumed run repeats nothing and
    skips nothing.

    Args:
        rows: Rows with `image` (PIL), `captions` (list of strings) and, optionally, `keywords` (list of strings).
        seed: Seed of all draws.
        crop_scale: Smallest share of the image's area that a random crop keeps; 1.0 takes the whole image.
        flip: Whether to mirror every other image.
        keyword_probability: How often keywords are appended to the caption.
    """

    def __init__(
        self,
        rows: Sequence[dict[str, Any]],
        seed: int = 0,
        crop_scale: float = 1.0,
        flip: bool = False,
        keyword_probability: float = 0.5,
    ):
        if not 0 < crop_scale <= 1:
            raise ValueError(f"crop_scale={crop_scale} must be in (0, 1], the smallest share of the image to keep.")
        super().__init__(rows, seed)
        self.crop_scale = crop_scale
        self.flip = flip
        self.keyword_probability = keyword_probability

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        captions = list(row["captions"])
        if not captions:
            raise ValueError(f"Row {index} has no caption; leave such rows out.")
        generator = self.generator(index)
        caption = captions[self._integer(generator, len(captions))]
        image = row["image"]
        return {
            "image": self._view(image, generator),
            "text": self._with_keywords(caption, row.get("keywords") or [], generator),
            "image_id": stable_id(image.tobytes()),
            # the caption as listed identifies the text: keywords only add what is true of the same thing
            "text_id": stable_id(caption),
            "known_text_ids": [stable_id(other) for other in captions],
            "generator": generator,
        }

    @staticmethod
    def _integer(generator: torch.Generator, end: int) -> int:
        return int(torch.randint(end, (), generator=generator))

    @staticmethod
    def _uniform(generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    def _with_keywords(self, caption: str, keywords: Sequence[str], generator: torch.Generator) -> str:
        if not keywords or self._uniform(generator) >= self.keyword_probability:
            return caption
        count = 1 + self._integer(generator, min(3, len(keywords)))
        chosen = torch.randperm(len(keywords), generator=generator)[:count].tolist()
        return ", ".join([caption, *(keywords[i] for i in chosen)])

    def _view(self, image: Image.Image, generator: torch.Generator) -> Image.Image:
        if self.crop_scale < 1:
            image = image.crop(self._crop_box(image.size, generator))
        if self.flip and self._uniform(generator) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return image

    def _crop_box(self, size: tuple[int, int], generator: torch.Generator) -> tuple[int, int, int, int]:
        """A box of at least `crop_scale` of the area, with its aspect ratio within 3:4 to 4:3 of the image's."""
        width, height = size
        side = self._uniform(generator, self.crop_scale, 1.0) ** 0.5
        stretch = self._uniform(generator, 0.75, 4 / 3) ** 0.5
        w = max(1, min(width, round(width * side * stretch)))
        h = max(1, min(height, round(height * side / stretch)))
        left, top = self._integer(generator, width - w + 1), self._integer(generator, height - h + 1)
        return left, top, left + w, top + h
