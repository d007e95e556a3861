"""Where training pairs come from: easy-VQA, files, folders or Hub data sets, brought to one form of rows."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from transformers.utils import logging

from ..extras import require
from .bad_rows import FAULT, reason, summary_of_bad_rows
from .builtin_sources import find_builtin
from .column_names import CAPTION_COLUMNS
from .columns import find_column, find_image_column, usual_column
from .pair_reader import Columns, PairReader
from .source_rows import encoded_images, load_rows, splits_in

if TYPE_CHECKING:
    from datasets import Dataset, Features, IterableDataset

logger = logging.get_logger(__name__)

_MAX_SHARDS = 64  # of a stream over rows that lie on disk: what processes and workers can share out


def load_pairs(
    source: str | os.PathLike,
    split: str = "train",
    image_column: str = "image",
    caption_column: str | None = None,
    keyword_columns: Sequence[str] = (),
    skip_bad_rows: bool = False,
) -> Dataset:
    """Image-caption pairs with the columns `image` (of any mode), `captions` (list), `keywords` (list) and `origin`.

    Args:
        source: `"easy-vqa"`; a folder of images with a metadata.jsonl or metadata.csv, or with a .txt beside each
            whose lines are its captions, of Parquet files, or written by `save_to_disk`; a Parquet, JSON Lines, CSV,
            TSV or WebDataset .tar file, or a pattern of several (`"data/*.parquet"`); or the id of a Hub data set.
            Paths of images in columns count from the folder, or the file's.
        split: Split to load.
        image_column: Column with the images; `image` is `file_name`, too, where there is no other.
        caption_column: Column with a caption, or a list of captions, per image (of a `ClassLabel`, its name); without
            one, the first of `captions`, `caption`, `text` and `txt` that there is.
        keyword_columns: Columns with a list of keywords; the first that a source has is used.
        skip_bad_rows: Leave out rows whose captions are no texts, with a warning that counts them, instead of
            raising an error. Images are not read here.

    Returns:
        The rows; `origin` is what an error calls each. A row whose caption is missing has none in `captions`.

    Raises:
        FileNotFoundError: If the source is a path and isn't there.
        ValueError: If the source has no such column (the message lists those it has), or a caption is no text.
    """
    source = os.fspath(source)
    table = load_rows(source, split)
    names = _columns(source, table.column_names, image_column, caption_column, keyword_columns)
    return _pairs(source, table, names, skip_bad_rows).cast_column("image", require("datasets").Image())


def load_pair_stream(
    source: str | os.PathLike,
    split: str = "train",
    image_column: str = "image",
    caption_column: str | None = None,
    keyword_columns: Sequence[str] = (),
    skip_bad_rows: bool = False,
) -> IterableDataset:
    """The rows of [`load_pairs`] as a stream, images not decoded: nothing is fetched or written ahead.

    With `skip_bad_rows` a row whose caption is no text says why in a column `fault`; [`StreamedImageTextPairs`] lets
    another take its place, and counts it.
    """
    datasets = require("datasets")
    source = os.fspath(source)
    rows = load_rows(source, split, streaming=True)
    names = list(rows.features or next(iter(rows)))  # of the Hub, JSON Lines have no declared columns
    columns = _columns(source, names, image_column, caption_column, keyword_columns)
    if isinstance(rows, datasets.Dataset):
        return _as_stream(_pairs(source, rows, columns, skip_bad_rows), skip_bad_rows)
    if rows.features and isinstance(rows.features[columns.image], datasets.Image):
        rows = rows.cast_column(columns.image, datasets.Image(decode=False))
    reader = PairReader(source, columns, rows.features or {}, counts_rows=rows.num_shards == 1)
    options = {"remove_columns": names, "features": _pair_features(skip_bad_rows), "with_indices": True}
    return rows.map(reader.or_fault if skip_bad_rows else reader, **options)


def concatenate(sources: Sequence[Dataset], weights: Sequence[float] = (), seed: int = 0) -> Dataset:
    """The rows of several sources of the same form, those without a caption left out.

    Args:
        weights: How often rows of each source come, relative to each other. A pass then ends when every row has come,
            rows of the others more than once. Without weights every row comes once: the larger source, the more often.
        seed: Seed of the draws that weights decide.
    """
    parts = [_with_captions(source) for source in _in_one_form(sources)]
    return _mix(parts, weights, seed) if weights else require("datasets").concatenate_datasets(parts)


def join(sources: Sequence[Dataset]) -> Dataset:
    """Returns the rows of several sources, one after the other, each row once, with or without a caption."""
    return require("datasets").concatenate_datasets(_in_one_form(sources))


def interleave(sources: Sequence[IterableDataset], weights: Sequence[float] = (), seed: int = 0) -> IterableDataset:
    """Several streams as one.

    Args:
        weights: As of [`concatenate`]. Without weights, it takes a row of each in turn, those at their end left out:
            every row comes once in a pass, at whose end only the largest source is left.
        seed: Seed of the draws that weights decide.
    """
    if weights:
        return _mix(sources, weights, seed)
    if len(sources) == 1:
        return sources[0]
    return require("datasets").interleave_datasets(
        list(sources), stopping_strategy="all_exhausted_without_replacement"
    )


def check_weights(weights: Sequence[float], sources: int) -> None:
    """Raises a ValueError unless there are none, or a positive one for each source."""
    if weights and len(weights) != sources:
        raise ValueError(f"There are {len(weights)} weights for {sources} source(s): give one for each, or none.")
    if not all(0 < weight < float("inf") for weight in weights):
        raise ValueError(f"Weights {list(weights)} must be above 0; leave a source out that is not to be read.")


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


def _in_one_form(sources: Sequence[Dataset]) -> list[Dataset]:
    datasets = require("datasets")
    features = datasets.Features({**_pair_features(), "image": datasets.Image()})
    return [source.cast(features) for source in sources]


def _mix(sources: Sequence[Any], weights: Sequence[float], seed: int) -> Any:
    check_weights(weights, len(sources))
    if len(sources) == 1:
        return sources[0]
    shares = [weight / sum(weights) for weight in weights]
    return require("datasets").interleave_datasets(
        list(sources), probabilities=shares, seed=seed, stopping_strategy="all_exhausted"
    )


def _pairs(source: str, table: Dataset, columns: Columns, skip_bad_rows: bool) -> Dataset:
    """The pairs of rows that can be indexed, images not decoded."""
    images = encoded_images(table, columns.image, source)
    reader = PairReader(source, columns, table.features)
    pairs: dict[str, list[Any]] = {name: [] for name in ("captions", "keywords", "origin")}
    kept, faults = list[int](), list[str]()
    for number, row in enumerate(table.select_columns(reader.text_columns(table.column_names))):
        try:
            texts = reader.texts(row, number)
        except ValueError as error:
            if not skip_bad_rows:
                raise
            faults.append(reason(error))
            continue
        kept.append(number)
        for name, values in pairs.items():
            values.append(texts[name])
    if faults:
        logger.warning(summary_of_bad_rows(faults))
    features = _pair_features()
    images = images if not faults else images.select(kept)
    for name, values in pairs.items():
        images = images.add_column(name, values, feature=features[name])
    return images


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


def _pair_features(with_faults: bool = False) -> Features:
    datasets = require("datasets")
    image, text = datasets.Image(decode=False), datasets.Value("string")
    faults = {FAULT: text} if with_faults else {}
    return datasets.Features(image=image, captions=_texts(), keywords=_texts(), origin=text, **faults)


def _texts() -> Any:
    datasets = require("datasets")
    return datasets.List(datasets.Value("string"))


def _as_stream(rows: Dataset, with_faults: bool) -> IterableDataset:
    if with_faults:  # none of its rows has any, and those of other streams may
        rows = rows.add_column(FAULT, [None] * len(rows), feature=_pair_features(with_faults)[FAULT])
    return rows.to_iterable_dataset(num_shards=max(1, min(_MAX_SHARDS, len(rows))))


def _columns(source: str, names: Sequence[str], image: str, caption: str | None, keywords: Sequence[str]) -> Columns:
    """Returns the columns to read in a source with columns of these names. ValueError if it lacks one."""
    images = find_image_column(image, names, source)
    captions = find_column(caption, CAPTION_COLUMNS, names, source, "caption_column")
    return Columns(images, captions, usual_column(keywords, names))
