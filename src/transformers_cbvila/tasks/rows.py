"""Rows of a downstream task: texts and labels in memory, images read when a row is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from ..data.bad_rows import WAY_OUT, BadRowError, summary_of_bad_rows
from ..data.images import read_image
from ..data.pairs import file_identity, stable_id
from ..extras import require
from .fields import Fields
from .image_layout import ImageLayout

if TYPE_CHECKING:
    from datasets import Dataset


class Record(NamedTuple):
    """A row: what an error calls it, its images as (source of images, row in it), and its other fields."""

    origin: str
    images: list[tuple[int, int]]
    fields: Fields


@dataclass
class TaskRows(Sequence):
    """Rows that can be indexed, as dictionaries with `image` (RGB) or, with several, `images`, and the task's fields.

    Args:
        image_sources: Data sets with one column `image`, not decoded.
        records: The rows.
        layout: How the images of a row lie in its columns.
        skipped: Why rows were left out, by row.
    """

    image_sources: list[Dataset]
    records: list[Record]
    layout: ImageLayout = ImageLayout()
    skipped: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        record = self.records[index]
        try:
            images = self.images(record)
        except ValueError as error:
            raise BadRowError(f"{record.origin}: {error}. {WAY_OUT}.") from error
        return {**record.fields, **({"images": images} if self.layout.several else {"image": images[0]})}

    def column(self, name: str) -> list[Any]:
        """Returns one field of all rows, without reading an image."""
        return [record.fields[name] for record in self.records]

    def fingerprint(self) -> int:
        """Returns a hash of the images, which changes when a file changes; no image is decoded."""
        return stable_id(*(self._identity(*place) for record in self.records for place in record.images))

    def _identity(self, source: int, row: int) -> bytes:
        value = self.image_sources[source][row]["image"] or {}
        known = value.get("bytes") or file_identity(value.get("path") or "").encode()
        return stable_id(known).to_bytes(8, "big")

    def images(self, record: Record) -> list[Image.Image]:
        """Returns the images of a row.

        Raises:
            ValueError: If one is missing or cannot be read.
        """
        return self.layout.split([read_image(self.image_sources[s][row]["image"]) for s, row in record.images])

    def without_broken_images(self) -> TaskRows:
        """Returns the rows whose images can be read; reads them all."""
        kept, skipped = [], list(self.skipped)
        for record in require("datasets.utils").tqdm(self.records, desc="Checking images"):
            try:
                self.images(record)
                kept.append(record)
            except ValueError as error:
                skipped.append(f"{record.origin}: {error}")
        return replace(self, records=kept, skipped=skipped)

    def summary_of_skipped(self) -> str:
        """Returns how many rows were left out, and why the first of them."""
        return summary_of_bad_rows(self.skipped)
