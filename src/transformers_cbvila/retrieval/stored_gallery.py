"""Reads galleries from disk, for more images or texts than fit in memory: files are memory-mapped.

Shapes: M images or texts, S tokens, D size of states, E embedding size.
"""

import warnings
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .shards import flat_values, read_description, tables


class StoredStates(Sequence[Tensor]):
    """The states (S, D) of each item, as views into memory-mapped files.

    Args:
        values: The flat values of each file.
        offsets: For each file, where its items begin in the values, and where the last one ends.
        width: D.
    """

    def __init__(self, values: list[Tensor], offsets: list[np.ndarray], width: int) -> None:
        self.values, self.offsets, self.width = values, offsets, width
        self.ends = list(accumulate(len(part) - 1 for part in offsets))

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, row: Any) -> Any:  # one row: slices are not needed
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        part = bisect_right(self.ends, row)
        offsets, place = self.offsets[part], int(row) - (self.ends[part - 1] if part else 0)
        return self.values[part][offsets[place] : offsets[place + 1]].view(-1, self.width)


class StoredGallery:
    """A [`Gallery`] in a folder that [`store_gallery`] wrote.

    Args:
        folder: The folder.

    Raises:
        FileNotFoundError: If the folder has no gallery.
        ValueError: If the gallery is not complete.
    """

    def __init__(self, folder: str | Path) -> None:
        self.description, self.folder = read_description(folder), Path(folder)
        parts = tables(folder)
        if not self.description.get("complete"):
            raise ValueError(
                f"The gallery in {folder} isn't complete ({sum(map(len, parts)):,} items so far): go on with "
                f"index(..., folder={str(folder)!r})."
            )
        chunks = _chunks(parts, "embeds")
        self.blocks = [_mapped(chunk).view(len(chunk), -1) for chunk in chunks]
        self.states: Sequence[Tensor] = []
        if self.description["width"]:
            chunks = _chunks(parts, "states")
            dtype = getattr(torch, self.description["dtype"])
            values = [_mapped(chunk).view(dtype) for chunk in chunks]
            offsets = [flat_values(chunk.offsets, np.int32) for chunk in chunks]
            self.states = StoredStates(values, offsets, self.description["width"])


def _chunks(parts: Sequence[Any], column: str) -> list[Any]:
    """Returns the arrays of a column: one for each batch that was written."""
    return [chunk for part in parts for chunk in part.column(column).chunks if len(chunk)]


def _mapped(array: Any) -> Tensor:
    """Returns the numbers of an Arrow array of lists as a tensor, without a copy."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given (NumPy array|buffer) is not writable")
        return torch.from_numpy(flat_values(array, array.type.value_type.to_pandas_dtype()))
