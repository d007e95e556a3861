"""Image-caption pairs to measure a model on, in their order, bad ones named or left out."""

from collections.abc import Sequence
from typing import Any, overload

from .bad_rows import reason, summary_of_bad_rows
from .pairs import ImageTextPairs


class MeasuredPairs(Sequence[dict[str, Any]]):
    """Rows with `image` (RGB) and `captions` that can be indexed.

    Args:
        rows: As [`ImageTextPairs`] takes them.
        skip_bad_rows: Whether to leave out rows whose image cannot be read or that have no caption, with the reasons
            in `skipped`; every image is read once beforehand. Without, such a row is an error that names it.

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

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._pairs.row(self._kept[index])

    def summary_of_skipped(self) -> str:
        """Returns how many rows were left out, and why the first ones were."""
        return summary_of_bad_rows(self.skipped)

    def _can_be_read(self, index: int) -> bool:
        try:
            self._pairs.row(index)
        except ValueError as error:
            self.skipped.append(reason(error))
            return False
        return True
