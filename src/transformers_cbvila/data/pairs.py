"""Image-caption pairs for pretraining: a row of a dataset as a training example of an epoch."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from ..model.messages_cbvila import shown
from .bad_rows import NAMED, TRIES, WAY_OUT, reason, summary_of_bad_rows
from .column_names import CAPTION_COLUMNS
from .columns import usual_column
from .epoch_rows import EpochRows
from .image_views import ImageViews, integer, uniform
from .label_maps import LabelMaps
from .masking import generator_for
from .texts import class_names, items_of, named, texts_of, texts_or_blanks

_OTHER_VIEW = 1  # second key of the draw of another view, after the seed of the first one
_SUBSTITUTE = 1  # fourth key of the draw of another row in place of a bad one


def stable_id(*parts: str | bytes) -> int:
    """Returns a 63-bit integer that is the same for equal content in every process and run."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return int.from_bytes(digest.digest(), "big") >> 1


def file_identity(path: str | os.PathLike) -> str:
    """Returns a path with its file's size and time of change; of anything else (a URL) the name alone."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return str(path)
    return f"{path} {status.st_size} {status.st_mtime_ns}"


@dataclass
class PairDraws:
    """Turns a row into an example: a caption of the row (and some of its keywords) and a view of its image.

    Args:
        views: Views of the image.
        keyword_probability: How often keywords are appended to the caption.
        label_maps: What returns the label map of a row, whose view is then part of the example.
        two_views: Whether examples also have another view of the image, and of its label map.
    """

    views: ImageViews = field(default_factory=ImageViews)
    keyword_probability: float = 0.5
    label_maps: LabelMaps | None = None
    two_views: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.keyword_probability <= 1:
            raise ValueError(f"keyword_probability={self.keyword_probability} must be a share from 0 to 1.")

    def draw(self, row: dict[str, Any], generator: torch.Generator, caption: int | None = None) -> dict[str, Any]:
        """Returns an example of a row.

        Args:
            row: With `image` (RGB), `captions` (at least one) and, optionally, `keywords` and `negative_captions`:
                texts that are false of the image. If there are as many as captions, each goes with its caption, and
                is "" where that has none; otherwise one is drawn.
            generator: Generator of the draws. It is part of the example: the collator draws masks from it.
            caption: Which caption to take; without, one is drawn.
        """
        captions = list(row["captions"])
        number = integer(generator, len(captions)) if caption is None else caption
        text = captions[number]
        image_id = stable_id(row["image"].tobytes())
        labels = None if self.label_maps is None else self.label_maps(row, image_id)
        views = self._view(row["image"], labels, generator)
        if self.two_views:  # from a generator of its own, so that all other draws are the same without it
            other = self._view(row["image"], labels, generator_for(generator.initial_seed(), _OTHER_VIEW))
            views |= {f"other_{name}": view for name, view in other.items()}
        example = {
            **views,
            "text": self._with_keywords(text, row.get("keywords") or [], generator),
            "image_id": image_id,
            # the caption without keywords, which add only what is true of the same image
            "text_id": stable_id(text),
            "known_text_ids": [stable_id(other) for other in captions],
            "generator": generator,
        }
        negative = _negative_caption(row, number, generator)
        return {**example, "negative_text": negative} if negative else example

    def _view(
        self, image: Image.Image, labels: Image.Image | None, generator: torch.Generator
    ) -> dict[str, Image.Image | None]:
        """Returns a view of an image as `image` and, if label maps are wanted, of its map as `label_map`."""
        view, of_labels = self.views.draw_with_labels(image, labels, generator)
        return {"image": view} if self.label_maps is None else {"image": view, "label_map": of_labels}

    def _with_keywords(self, caption: str, keywords: Sequence[str], generator: torch.Generator) -> str:
        if not keywords or uniform(generator) >= self.keyword_probability:
            return caption
        count = 1 + integer(generator, min(3, len(keywords)))
        chosen = torch.randperm(len(keywords), generator=generator)[:count].tolist()
        return ", ".join([caption, *(keywords[i] for i in chosen)])


def _negative_caption(row: dict[str, Any], caption: int, generator: torch.Generator) -> str:
    """Returns a text that is false of the image, the caption's own one if captions have theirs; "" without any."""
    given = texts_or_blanks(row.get("negative_captions"), "negative caption")
    if len(given) == len(items_of(row["captions"], "caption")):
        return given[caption]
    texts = [text for text in given if text]
    return texts[integer(generator, len(texts))] if texts else ""


class ImageTextPairs(EpochRows):
    """Examples drawn from the rows of a map-style dataset, other ones every epoch.

    Every draw depends on (seed, epoch, row) only, never on global random state, so that a resumed run repeats and
    skips nothing. [`StreamedImageTextPairs`] does the same for a stream.

    Args:
        rows: Rows with `image` (PIL, path, bytes …), `captions` (list of strings; or another usual column) and,
            optionally, `keywords` and `negative_captions` (lists of strings, see [`PairDraws`]). [`load_pairs`] makes
            such rows of files and folders.
        seed: Seed of all draws.
        keyword_probability: See [`PairDraws`].
        skip_bad_rows: Whether another row, drawn from (seed, epoch, row), takes the place of one whose image cannot be
            read or that has no caption; `summary_of_bad_rows` counts them, and no image is read beforehand. Without,
            such a row is an error that names it.
        label_maps, two_views: See [`PairDraws`].
        views: `crop_scale`, `flip` and the other options of [`ImageViews`].

    Raises:
        ValueError: If rows have no captions.
    """

    def __init__(
        self,
        rows: Sequence[dict[str, Any]],
        seed: int = 0,
        keyword_probability: float = 0.5,
        skip_bad_rows: bool = False,
        label_maps: LabelMaps | None = None,
        two_views: bool = False,
        **views: Any,
    ) -> None:
        super().__init__(rows, seed)
        self.draws = PairDraws(ImageViews(**views), keyword_probability, label_maps, two_views)
        self.skip_bad_rows = skip_bad_rows
        # in shared memory: loader workers find bad rows, and the trainer's process counts them
        self._bad = torch.zeros(len(rows), dtype=torch.bool).share_memory_()
        self._features = getattr(self.rows, "features", None) or {}
        if self._features:
            caption_column(list(self._features), "The data set")

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.draws.draw(self._readable(index), self.generator(index))

    @property
    def bad_rows(self) -> int:
        """Number of bad rows found so far, which others replaced."""
        return int(self._bad.sum())

    def summary_of_bad_rows(self) -> str:
        """Returns how many bad rows were found so far, and what is wrong with the first ones."""
        first = self._bad.nonzero().flatten()[:NAMED].tolist()
        return summary_of_bad_rows([fault for index in first if (fault := self._fault(index))], self.bad_rows)

    def share_bad_rows(self, reduce: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Adds what other processes found; `reduce` sums a tensor over processes."""
        self._bad.copy_(reduce(self._bad.long()) > 0)

    def row(self, index: int) -> dict[str, Any]:
        """Returns a row with its image as RGB and its captions as a list; see [`EpochRows.row`]."""
        row = super().row(index)
        origin = row.get("origin") or f"Row {index}"
        column = caption_column(list(row), origin)
        try:
            captions = texts_of(named(row[column], class_names(self._features.get(column))), "caption")
        except ValueError as error:
            raise ValueError(f"{origin}: {error}. {WAY_OUT}.") from error
        return {**row, "captions": captions}

    def _readable(self, index: int) -> dict[str, Any]:
        """Returns a row, or the one that replaces it if it is bad."""
        try:
            return self.row(index)
        except ValueError:
            if not self.skip_bad_rows:
                raise
            self._bad[index] = True
        generator = generator_for(self.seed, int(self._epoch), index, _SUBSTITUTE)
        start, tries = integer(generator, len(self)), min(len(self), TRIES)
        for other in ((start + step) % len(self) for step in range(tries)):
            if self._bad[other]:
                continue
            try:
                return self.row(other)
            except ValueError:
                self._bad[other] = True
        raise ValueError(f"{tries:,} rows that follow each other are all bad. {self.summary_of_bad_rows()}")

    def _fault(self, index: int) -> str | None:
        try:
            self.row(index)
        except ValueError as error:
            return reason(error)
        return None


def caption_column(names: Sequence[str], what: str) -> str:
    """Returns the first usual column of captions among `names`. ValueError, which begins with `what`, if none is."""
    column = usual_column(CAPTION_COLUMNS, names)
    if column is None:
        raise ValueError(
            f"{what} has the columns {shown(list(names), 200)}, and none is called {', '.join(CAPTION_COLUMNS)}: "
            "rename the one with the captions, or read the data with load_pairs(…, caption_column=…)."
        )
    return column
