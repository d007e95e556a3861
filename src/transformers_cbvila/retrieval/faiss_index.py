"""An optional FAISS index: faster, approximate search in memory instead of comparing a query with every item."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..extras import require
from ..model.messages_cbvila import one_line, shown

FAISS_FILE = "index.faiss"  # in the folder of a gallery
_EXAMPLES = '"Flat", "HNSW32", "IVF64,Flat" (64 cells) or "IVF64,PQ16" (16 bytes of each)'
_CELLS, _CODES = re.compile(r"IVF(\d+)"), re.compile(r"PQ\d+(?:x(\d+))?")
_PLACE = re.compile(r"^Error in .*?:\d+: (Error: )?('.*?' failed(: )?)?")
_WELL_TRAINED = 39  # points per cell, below which FAISS warns


class FaissIndex:
    """Finds the items with the largest inner products, which are cosines because embeddings have unit length.

    Args:
        index: A `faiss.Index`.
    """

    def __init__(self, index: Any) -> None:
        self.index = index

    @classmethod
    def build(cls, blocks: Sequence[Tensor], string_factory: str, train_rows: int) -> "FaissIndex":
        """Builds an index of embeddings.

        Args:
            blocks: The embeddings, as consecutive blocks (g, E).
            string_factory: FAISS's description of the index, such as `"IVF64,Flat"`.
            train_rows: How many evenly spaced embeddings to train the index on, at most about twice as many.

        Raises:
            ValueError: If FAISS cannot build such an index, or there are too few embeddings to train it.
        """
        faiss, width, count = require("faiss"), blocks[0].shape[1], sum(map(len, blocks))
        if not isinstance(string_factory, str) or train_rows < 1:
            raise ValueError(
                f"string_factory={shown(string_factory)}, train_rows={train_rows}: FAISS takes a string, e.g. "
                f"{_EXAMPLES}, and trains on at least one row."
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
        """Reads an index that [`write`] wrote.

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
        """Writes the index into a file, under a temporary name until it is complete."""
        unfinished = file.with_name(file.name + ".unfinished")
        require("faiss").write_index(self.index, str(unfinished))
        os.replace(unfinished, file)

    def __len__(self) -> int:
        return self.index.ntotal

    def most_similar(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Returns cosines and rows as [`most_similar`] does; -inf and -1 where the index finds fewer than k items."""
        cosines, rows = map(torch.from_numpy, self.index.search(queries.float().numpy(), min(k, len(self))))
        return cosines.masked_fill(rows < 0, -torch.inf), rows


def _train(index: Any, blocks: Sequence[Tensor], string_factory: str, step: int) -> None:
    """Trains an index on every `step`-th embedding."""
    sample = torch.cat([block[::step] for block in blocks]).float().numpy()
    needed = _points_needed(string_factory)
    try:
        if len(sample) < needed:
            raise RuntimeError(f"{needed:,} are needed")
        index.train(sample)
    except RuntimeError as error:
        cells = max(1, len(sample) // _WELL_TRAINED)
        raise ValueError(
            f"string_factory={shown(string_factory)} has too few items to train on: {len(sample):,} "
            f'({_reason(error)}). Index more items, or use "Flat", which is not trained, or "IVF{cells},Flat".'
        ) from error


def _points_needed(string_factory: str) -> int:
    """Returns how many embeddings training needs at least: one per cell and per code of a product quantizer."""
    cells = [int(number) for number in _CELLS.findall(string_factory)]
    codes = [2 ** int(bits or 8) for bits in _CODES.findall(string_factory)]
    return max([1, *cells, *codes])


def _reason(error: Exception) -> str:
    """Returns FAISS's message without the place in its code and the condition that failed there."""
    return one_line(_PLACE.sub("", " ".join(str(error).split())), 200)
