"""Image-caption pairs for pretraining: one row of a dataset, seen in one epoch, as one training example."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..model.image_loading_cbvila import DECODING_ERRORS, to_rgb
from .epoch_rows import EpochRows
from .image_views import ImageViews, integer, uniform


def stable_id(*parts: str | bytes) -> int:
    """A 63-bit integer that equal content has in every process and run."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return int.from_bytes(digest.digest(), "big") >> 1


def file_identity(path: str | os.PathLike) -> str:
    """A path, with size and time of change of the file there; of what is none (a URL) the name alone."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return str(path)
    return f"{path} {status.st_size} {status.st_mtime_ns}"


@dataclass
class PairDraws:
    """Turns a row into an example: a caption of the row (and some of its keywords) and a view of its image.

    Args:
        views: How the image is looked at.
        keyword_probability: How often keywords are appended to the caption.
    """

    views: ImageViews = field(default_factory=ImageViews)
    keyword_probability: float = 0.5

    def __post_init__(self):
        if not 0 <= self.keyword_probability <= 1:
            raise ValueError(f"keyword_probability={self.keyword_probability} must be a share from 0 to 1.")

    def draw(self, row: dict[str, Any], generator: torch.Generator, caption: int | None = None) -> dict[str, Any]:
        """The example of a row with `image` (PIL), `captions` (at least one) and, optionally, `keywords`.

        The generator is handed on with the example: the collator draws the masks from it.

        Args:
            caption: Which of the captions to take; without, one is drawn.
        """
        captions = list(row["captions"])
        text = captions[integer(generator, len(captions)) if caption is None else caption]
        image = to_rgb(row["image"])
        return {
            "image": self.views.draw(image, generator),
            "text": self._with_keywords(text, row.get("keywords") or [], generator),
            "image_id": stable_id(image.tobytes()),
            # the caption as listed identifies the text: keywords only add what is true of the same thing
            "text_id": stable_id(text),
            "known_text_ids": [stable_id(other) for other in captions],
            "generator": generator,
        }

    def _with_keywords(self, caption: str, keywords: Sequence[str], generator: torch.Generator) -> str:
        if not keywords or uniform(generator) >= self.keyword_probability:
            return caption
        count = 1 + integer(generator, min(3, len(keywords)))
        chosen = torch.randperm(len(keywords), generator=generator)[:count].tolist()
        return ", ".join([caption, *(keywords[i] for i in chosen)])


class ImageTextPairs(EpochRows):
    """Examples drawn from the rows of a data set that can be indexed, anew every epoch.

    Every draw depends on (seed, epoch, row) only, never on global random state: a resumed run repeats nothing and
    skips nothing. [`StreamedImageTextPairs`] does the same for a stream.

    Args:
        rows: Rows with `image` (PIL), `captions` (list of strings) and, optionally, `keywords` (list of strings).
        seed: Seed of all draws.
        keyword_probability: See [`PairDraws`].
        views: `crop_scale`, `flip` and the other options of [`ImageViews`].
    """

    def __init__(
        self,
        rows: Sequence[dict[str, Any]],
        seed: int = 0,
        keyword_probability: float = 0.5,
        **views: Any,
    ):
        super().__init__(rows, seed)
        self.draws = PairDraws(ImageViews(**views), keyword_probability)

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            row = self.rows[index]
        except IndexError:
            raise
        except DECODING_ERRORS as error:
            raise ValueError(
                f"The image of pair {index} cannot be read ({type(error).__name__}: {error}); leave it out."
            ) from error
        if not row["captions"]:
            raise ValueError(f"Row {index} has no caption; leave such rows out.")
        return self.draws.draw(row, self.generator(index))
