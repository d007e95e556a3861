"""Images of a source, whatever else its rows have, in blocks that processes can share out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from ..extras import require
from .bad_rows import KEY, key_columns, row_origin
from .columns import find_image_column
from .images import encoded, with_images
from .source_images import encoded_images, image_locator
from .source_rows import load_rows

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset


class ImageRow(NamedTuple):
    """An image of a source, not decoded.

    Attributes:
        number: Its row in the split, from 0.
        image: As [`read_image`] takes it.
        origin: What an error calls the row.
        name: The path of its file, from the folder of the source where it is in it, or the name of a sample; ""
            without one.
    """

    number: int
    image: Any
    origin: str
    name: str

    def decoded(self) -> Image.Image:
        """Returns the image as RGB.

        Raises:
            ValueError: If it cannot be read; the message names the row.
        """
        return with_images({"image": self.image}, self.origin)["image"]


class ImageRows:
    """The images of a split of a source, read in order and not decoded. Texts are not needed.

    Args:
        source: See [`load_pairs`].
        split: A split, or a part of one.
        image_column: Column with the images; without a column `image`, `file_name` is used for it.

    Raises:
        FileNotFoundError: If the source is a path and isn't there.
        ValueError: If it has no such split or column.
    """

    def __init__(self, source: str, split: str, image_column: str = "image") -> None:
        self.source = source
        rows: Dataset | IterableDataset = load_rows(source, split, streaming=True)
        names = list(rows.features or next(iter(rows)))  # JSON Lines of the Hub declare no columns
        self._column = find_image_column(image_column, names, source)
        self._place, self._folder = image_locator(source), os.path.abspath(source) if os.path.isdir(source) else None
        self._rows = self._without_other_columns(rows, names)

    @property
    def count(self) -> int | None:
        """Number of rows; None of a stream."""
        return len(self._rows) if hasattr(self._rows, "__len__") else None

    def _without_other_columns(self, rows: Dataset | IterableDataset, names: list[str]) -> Any:
        datasets, keys = require("datasets"), key_columns(names)
        if isinstance(rows, datasets.Dataset):
            images, self._column = encoded_images(rows, self._column, self.source), "image"
            for name in keys:
                images = images.add_column(name, list(rows[name]))
            return images
        if rows.features and isinstance(rows.features[self._column], datasets.Image):
            rows = rows.cast_column(self._column, datasets.Image(decode=False))
        return rows.select_columns([self._column, *keys]) if rows.features else rows

    def blocks(self, size: int, wanted: Callable[[int], bool]) -> Iterator[tuple[int, list[ImageRow]]]:
        """Yields blocks of `size` consecutive rows that are wanted by their number; the last one may be smaller.

        Rows of other blocks are skipped where they can be, and else read without decoding.
        """
        if self.count is not None:
            for block, start in enumerate(range(0, self.count, size)):
                if wanted(block):
                    stop = min(start + size, self.count)
                    yield block, [self._row(number, self._rows[number]) for number in range(start, stop)]
            return
        rows, block = enumerate(self._rows), 0
        while True:
            if wanted(block):
                found = [self._row(number, row) for number, row in islice(rows, size)]
                if found:
                    yield block, found
                count = len(found)
            else:
                count = sum(1 for _ in islice(rows, size))
            if count < size:
                return
            block += 1

    def _row(self, number: int, row: Mapping[str, Any]) -> ImageRow:
        image, origin = row.get(self._column), row_origin(self.source, number, row)
        image = encoded(self._place(image))
        path = image.get("path") if isinstance(image, Mapping) else None
        return ImageRow(number, image, origin, row.get(KEY) or self._name(path))

    def _name(self, path: str | None) -> str:
        """Returns a path from the folder of the source, if it is in it."""
        if not path or self._folder is None or "://" in path:
            return path or ""
        there = os.path.abspath(path)
        return os.path.relpath(there, self._folder) if there.startswith(self._folder + os.sep) else path
