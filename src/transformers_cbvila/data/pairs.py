"""Image-caption pairs for pretraining: one row of a dataset, seen in one epoch, as one training example."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass
class PairDraws:
    """Turns a row into an example: a caption of the row (and some of its keywords) and a crop of its image.

    Args:
        crop_scale: Smallest share of the image's area that a random crop keeps; 1.0 takes the whole image.
        flip: Whether to mirror every other image.
        keyword_probability: How often keywords are appended to the caption.
    """

    crop_scale: float = 1.0
    flip: bool = False
    keyword_probability: float = 0.5

    def __post_init__(self):
        if not 0 < self.crop_scale <= 1:
            raise ValueError(
                f"crop_scale={self.crop_scale} must be in (0, 1], the smallest share of the image to keep."
            )
        if not 0 <= self.keyword_probability <= 1:
            raise ValueError(f"keyword_probability={self.keyword_probability} must be a share from 0 to 1.")

    def draw(self, row: dict[str, Any], generator: torch.Generator) -> dict[str, Any]:
        """The example of a row with `image` (PIL), `captions` (at least one) and, optionally, `keywords`.

        The generator is handed on with the example: the collator draws the masks from it.
        """
        captions = list(row["captions"])
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
            image = image.crop(self.crop_box(image.size, generator))
        if self.flip and self._uniform(generator) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return image

    def crop_box(self, size: tuple[int, int], generator: torch.Generator) -> tuple[int, int, int, int]:
        """A box of at least `crop_scale` of the area, with its aspect ratio within 3:4 to 4:3 of the image's."""
        width, height = size
        side = self._uniform(generator, self.crop_scale, 1.0) ** 0.5
        stretch = self._uniform(generator, 0.75, 4 / 3) ** 0.5
        w = max(1, min(width, round(width * side * stretch)))
        h = max(1, min(height, round(height * side / stretch)))
        left, top = self._integer(generator, width - w + 1), self._integer(generator, height - h + 1)
        return left, top, left + w, top + h


class ImageTextPairs(EpochRows):
    """Examples drawn from the rows of a data set that can be indexed, anew every epoch.

    Every draw depends on (seed, epoch, row) only, never on global random state: a resumed run repeats nothing and
    skips nothing. [`StreamedImageTextPairs`] does the same for a stream.

    Args:
        rows: Rows with `image` (PIL), `captions` (list of strings) and, optionally, `keywords` (list of strings).
        seed: Seed of all draws.
        crop_scale, flip, keyword_probability: See [`PairDraws`].
    """

    def __init__(
        self,
        rows: Sequence[dict[str, Any]],
        seed: int = 0,
        crop_scale: float = 1.0,
        flip: bool = False,
        keyword_probability: float = 0.5,
    ):
        super().__init__(rows, seed)
        self.draws = PairDraws(crop_scale, flip, keyword_probability)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        if not row["captions"]:
            raise ValueError(f"Row {index} has no caption; leave such rows out.")
        return self.draws.draw(row, self.generator(index))
