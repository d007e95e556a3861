"""Some items of a gallery, in any order, as a gallery of their own: nothing is copied until it is read.

Shapes: M items of the gallery, n of them, S tokens, D size of states, E embedding size.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from .gallery import Gallery

_BLOCK = 8192  # items of a block


class SelectedGallery:
    """A [`Gallery`] of the items in some rows of another one.

    Args:
        gallery: The other gallery.
        rows: (n,) its rows, in any order; a row may come several times.
    """

    def __init__(self, gallery: Gallery, rows: Tensor) -> None:
        self.blocks: Sequence[Tensor] = _SelectedBlocks(gallery.blocks, rows)
        self.states: Sequence[Tensor] = _SelectedStates(gallery.states, rows) if len(gallery.states) else []


class _SelectedStates(Sequence[Tensor]):
    def __init__(self, states: Sequence[Tensor], rows: Tensor) -> None:
        self.states, self.rows = states, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: Any) -> Any:  # one row: slices are not needed
        return self.states[int(self.rows[row])]


class _SelectedBlocks(Sequence[Tensor]):
    """Embeddings of selected rows in blocks of `_BLOCK`, each gathered when it is asked for."""

    def __init__(self, blocks: Sequence[Tensor], rows: Tensor) -> None:
        self.blocks, self.parts = blocks, rows.split(_BLOCK)
        self.ends = torch.tensor(list(accumulate(map(len, blocks))))

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: Any) -> Any:  # one block: slices are not needed
        rows = self.parts[number]
        gathered = self.blocks[0].new_empty(len(rows), self.blocks[0].shape[1])
        places = torch.bucketize(rows, self.ends, right=True)
        for place in places.unique().tolist():
            here, first = places == place, int(self.ends[place - 1]) if place else 0
            gathered[here] = self.blocks[place][rows[here] - first]
        return gathered
