"""An optional FAISS index in place of comparing a query with every item: faster, approximate, and in memory."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..extras import require
from ..model.messages_cbvila import one_line, shown

_EXAMPLES = '"Flat", "HNSW32", "IVF64,Flat" (64 cells) or "IVF64,PQ16" (16 bytes of each)'
_CELLS, _CODES = re.compile(r"IVF(\d+)"), re.compile(r"PQ\d+(?:x(\d+))?")
_PLACE = re.compile(r"^Error in .*?:\d+: (Error: )?('.*?' failed(: )?)?")
_WELL_TRAINED = 39  # points to a cell, below which FAISS warns


class FaissIndex:
    """Finds items of large inner product with queries; equal lengths make that the cosine."""

    def __init__(self, index: Any):
        self.index = index

    @classmethod
    def build(cls, blocks: Sequence[Tensor], string_factory: str, train_rows: int) -> "FaissIndex":
        """An index of embeddings (g, E) in parts; `string_factory` in FAISS's words. It learns from up to `train_rows`
        of them, evenly spread.

        Raises:
            ValueError: If FAISS cannot make such an index, or there are too few embeddings for it to learn from.
        """
        faiss, width, count = require("faiss"), blocks[0].shape[1], sum(map(len, blocks))
        if not isinstance(string_factory, str) or train_rows < 1:
            raise ValueError(
                f"string_factory={shown(string_factory)}, train_rows={train_rows}: FAISS takes a text, e.g. "
                f"{_EXAMPLES}, and learns from at least one row."
            )
        try:
            index = faiss.index_factory(width, string_factory, faiss.METRIC_INNER_PRODUCT)
        except RuntimeError as error:
            raise ValueError(
                f"string_factory={shown(string_factory)}: FAISS makes no such index of embeddings {width} wide "
                f"({_reason(error)}). Give {_EXAMPLES}."
            ) from error
        if not index.is_trained:
            _train(index, blocks, string_factory, max(1, count // train_rows))
        for block in blocks:
            index.add(block.float().numpy())
        return cls(index)

    @classmethod
    def read(cls, file: Path) -> "FaissIndex":
        """The index that [`write`] wrote.

        Raises:
            ValueError: If the file is damaged.
        """
        try:
            return cls(require("faiss").read_index(str(file)))
        except RuntimeError as error:
            raise ValueError(
                f"{file} is no FAISS index, or a damaged one ({_reason(error)}): delete it, and call add_faiss_index."
            ) from error

    def write(self, file: Path) -> None:
        unfinished = file.with_name(file.name + ".unfinished")
        require("faiss").write_index(self.index, str(unfinished))
        os.replace(unfinished, file)

    def __len__(self) -> int:
        return self.index.ntotal

    def most_similar(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """As [`most_similar`], of what the index finds: where that is less than k, rows are -1 and cosines -inf."""
        cosines, rows = map(torch.from_numpy, self.index.search(queries.float().numpy(), min(k, len(self))))
        return cosines.masked_fill(rows < 0, -torch.inf), rows


def _train(index: Any, blocks: Sequence[Tensor], string_factory: str, step: int) -> None:
    """Has an index learn from every so many embeddings."""
    sample = torch.cat([block[::step] for block in blocks]).float().numpy()
    needed = _points_needed(string_factory)
    try:
        if len(sample) < needed:
            raise RuntimeError(f"{needed:,} are needed")
        index.train(sample)
    except RuntimeError as error:
        cells = max(1, len(sample) // _WELL_TRAINED)
        raise ValueError(
            f"string_factory={shown(string_factory)} has too few items to learn from: {len(sample):,} "
            f'({_reason(error)}). Index more of them, or take "Flat", which learns nothing, or "IVF{cells},Flat".'
        ) from error


def _points_needed(string_factory: str) -> int:
    """How many embeddings an index must see: one for each cell and for each code of a part."""
    cells = [int(number) for number in _CELLS.findall(string_factory)]
    codes = [2 ** int(bits or 8) for bits in _CODES.findall(string_factory)]
    return max([1, *cells, *codes])


def _reason(error: Exception) -> str:
    """What FAISS says, without the place in its code and the condition that failed there."""
    return one_line(_PLACE.sub("", " ".join(str(error).split())), 200)
