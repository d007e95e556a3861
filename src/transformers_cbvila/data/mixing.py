"""Several sources of image-caption pairs as one: joined, or mixed by weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from transformers.utils import logging

from ..extras import require
from .pair_reader import pair_features

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

logger = logging.get_logger(__name__)


def check_weights(weights: Sequence[float], sources: int) -> None:
    """Raises a ValueError unless there are no weights, or a positive one for each source."""
    if weights and len(weights) != sources:
        raise ValueError(f"There are {len(weights)} weights for {sources} source(s): give one for each, or none.")
    if not all(0 < weight < float("inf") for weight in weights):
        raise ValueError(f"Weights {list(weights)} must be above 0; leave a source out that is not to be read.")


def join(sources: Sequence[Dataset]) -> Dataset:
    """Returns the rows of several sources, one after the other, each row once, with or without a caption."""
    return require("datasets").concatenate_datasets(_in_one_form(sources))


def concatenate(sources: Sequence[Dataset], weights: Sequence[float] = (), seed: int = 0) -> Dataset:
    """Returns the rows of several sources for training; rows without a caption are left out.

    Args:
        sources: Pairs, as [`load_pairs`] returns them.
        weights: How often rows of each source come, relative to each other. A pass then ends when every row has come,
            rows of the other sources more than once. Without weights every row comes once.
        seed: Seed of the draws that weights decide.
    """
    parts = [_with_captions(source) for source in _in_one_form(sources)]
    return _mix(parts, weights, seed) if weights else require("datasets").concatenate_datasets(parts)


def interleave(sources: Sequence[IterableDataset], weights: Sequence[float] = (), seed: int = 0) -> IterableDataset:
    """Returns several streams as one.

    Args:
        sources: Pairs, as [`load_pair_stream`] returns them.
        weights: As of [`concatenate`]. Without weights, a row of each stream comes in turn, without those at their
            end: every row comes once in a pass, at whose end only the largest source is left.
        seed: Seed of the draws that weights decide.
    """
    if weights:
        return _mix(sources, weights, seed)
    if len(sources) == 1:
        return sources[0]
    return require("datasets").interleave_datasets(
        list(sources), stopping_strategy="all_exhausted_without_replacement"
    )


def _in_one_form(sources: Sequence[Dataset]) -> list[Dataset]:
    datasets = require("datasets")
    with_labels = "label_map" in sources[0].column_names
    features = datasets.Features({**pair_features(with_labels=with_labels), "image": datasets.Image()})
    return [source.cast(features) for source in sources]


def _mix(sources: Sequence[Any], weights: Sequence[float], seed: int) -> Any:
    check_weights(weights, len(sources))
    if len(sources) == 1:
        return sources[0]
    shares = [weight / sum(weights) for weight in weights]
    return require("datasets").interleave_datasets(
        list(sources), probabilities=shares, seed=seed, stopping_strategy="all_exhausted"
    )


def _with_captions(rows: Dataset) -> Dataset:
    kept = [row for row, captions in enumerate(rows["captions"]) if captions]
    if len(kept) == len(rows) and kept:
        return rows
    if not kept:
        first = rows[:1]["origin"]
        where = f" ({first[0]} is the first)" if first else ""
        raise ValueError(
            f"None of {len(rows):,} rows has a caption{where}. Fill in the captions, or name their column as "
            "caption_column."
        )
    logger.warning(f"{len(rows) - len(kept):,} of {len(rows):,} rows have no caption and are left out.")
    return rows.select(kept)
