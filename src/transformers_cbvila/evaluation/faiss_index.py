"""An optional FAISS index in place of comparing a query with every item: faster, approximate, and in memory."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..extras import require


class FaissIndex:
    """Finds items of large inner product with queries; equal lengths make that the cosine."""

    def __init__(self, index: Any):
        self.index = index

    @classmethod
    def build(cls, blocks: Sequence[Tensor], string_factory: str, train_rows: int) -> "FaissIndex":
        """An index of embeddings (g, E) in parts; `string_factory` in FAISS's words. It learns from up to `train_rows`
        of them, evenly spread."""
        faiss = require("faiss")
        index = faiss.index_factory(blocks[0].shape[1], string_factory, faiss.METRIC_INNER_PRODUCT)
        if not index.is_trained:
            step = max(1, sum(map(len, blocks)) // train_rows)
            index.train(torch.cat([block[::step] for block in blocks]).float().numpy())
        for block in blocks:
            index.add(block.float().numpy())
        return cls(index)

    @classmethod
    def read(cls, file: Path) -> "FaissIndex":
        return cls(require("faiss").read_index(str(file)))

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
