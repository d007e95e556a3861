"""Texts of sources, for vocabularies and for checks of tokenizers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from ..extras import require
from .builtin_sources import find_builtin
from .splits import splits_in

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset


def training_texts(
    sources: Sequence[Dataset | IterableDataset],
    names: Sequence[str],
    stream_rows: int = 100_000,
    split: str = "train",
) -> Iterator[str]:
    """Yields every text that a vocabulary for these sources should know.

    Args:
        sources: Pairs, as [`load_pairs`] or [`load_pair_stream`] return them.
        names: Names of the sources: of built-in ones, texts for other tasks come after all captions.
        stream_rows: How many rows of a stream are read.
        split: The split of these texts.
    """
    datasets = require("datasets")
    for rows in sources:
        texts = rows.select_columns(["captions", "keywords"])
        for row in texts if isinstance(rows, datasets.Dataset) else islice(texts, stream_rows):
            yield from row["captions"]
            yield from row["keywords"]
    for name in dict.fromkeys(names):
        builtin = find_builtin(name)
        if builtin is not None:
            for part in splits_in(split):
                yield from builtin.texts(part)
