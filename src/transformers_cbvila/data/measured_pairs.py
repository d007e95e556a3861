"""Image-caption pairs to measure a model on: in their order, as they are, bad ones named or left out."""

from collections.abc import Sequence
from typing import Any

from .bad_rows import reason, summary_of_bad_rows
from .pairs import ImageTextPairs


class MeasuredPairs(Sequence):
    """Rows with `image` (RGB) and `captions` that can be indexed.

    Args:
        rows: As [`ImageTextPairs`] takes them.
        skip_bad_rows: Whether to leave out rows whose image cannot be read or that have no caption, and say why in
            `skipped`; every image is read once for it. Without, such a row is an error that names it.

    Raises:
        ValueError: If, with `skip_bad_rows`, all rows are bad.
    """

    def __init__(self, rows: Sequence[dict[str, Any]], skip_bad_rows: bool = False) -> None:
        self._pairs = ImageTextPairs(rows)
        self.skipped: list[str] = []
        self._kept: Sequence[int] = range(len(rows))
        if skip_bad_rows:
            self._kept = [index for index in self._kept if self._can_be_read(index)]
            if self.skipped and not self._kept:
                raise ValueError(f"There is no row that can be used. {self.summary_of_skipped()}")

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._pairs.row(self._kept[index])

    def summary_of_skipped(self) -> str:
        """How many rows were left out, and why the first of them."""
        return summary_of_bad_rows(self.skipped)

    def _can_be_read(self, index: int) -> bool:
        try:
            self._pairs.row(index)
        except ValueError as error:
            self.skipped.append(reason(error))
            return False
        return True
