"""One training example for every item of every row: for each caption of an image, or each question about it."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from .epoch_rows import EpochRows


class RowItems(EpochRows):
    """Rows with several items each, so that a pass sees all items; a subclass makes an example of one.

    Args:
        rows: The rows.
        counts: How many items each row has.
        seed: Seed of all draws.
    """

    def __init__(self, rows: Sequence[dict[str, Any]], counts: Sequence[int], seed: int = 0) -> None:
        super().__init__(rows, seed)
        self._ends = list(accumulate(counts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def place(self, index: int) -> tuple[int, int]:
        """Returns the row of an example, and the item in it.

        Raises:
            IndexError: If there is no such example.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{index} is no example; there are {len(self)}.")
        row = bisect_right(self._ends, index)
        return row, index - (self._ends[row - 1] if row else 0)
