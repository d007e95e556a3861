"""Where training pairs come from: easy-VQA, files, folders or Hub data sets, brought to one form of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..extras import require
from .easy_vqa import load_easy_vqa, load_easy_vqa_captions
from .source_rows import EASY_VQA, encoded_images, load_rows, locate

if TYPE_CHECKING:
    from datasets import Dataset, Features, IterableDataset

CAPTION_COLUMNS = ("captions", "caption", "text")  # looked for, in this order, when none is named
_MAX_SHARDS = 64  # of a stream over rows that lie on disk: what processes and workers can share out


def load_pairs(
    source: str,
    split: str = "train",
    image_column: str = "image",
    caption_column: str | None = None,
    keyword_columns: Sequence[str] = (),
) -> Dataset:
    """Image-caption pairs with the columns `image` (of any mode), `captions` (list) and `keywords` (list).

    Args:
        source: `"easy-vqa"`; a folder of images with a metadata.jsonl or metadata.csv, of Parquet files, or written by
            `save_to_disk`; a Parquet, JSON Lines or CSV file, or a pattern of several (`"data/*.parquet"`); or the id
            of a Hub data set. Paths of images in columns count from the folder, or the file's.
        split: Split to load.
        image_column: Column with the images.
        caption_column: Column with a caption, or a list of captions, per image; without one, the first of
            `captions`, `caption` and `text` that there is.
        keyword_columns: Columns with a list of keywords; the first that a source has is used.

    Raises:
        FileNotFoundError: If the source is a path and isn't there.
        ValueError: If the source has no such column; the message lists those it has.
    """
    datasets = require("datasets")
    if source == EASY_VQA:
        rows = load_easy_vqa_captions(split).remove_columns("image_id")
        return rows.add_column("keywords", [[] for _ in range(len(rows))])
    rows = load_rows(source, split)
    caption_column, keyword_column = _columns(source, rows.column_names, image_column, caption_column, keyword_columns)
    captions = [_texts(value) for value in rows[caption_column]]
    keywords = [_texts(value) for value in rows[keyword_column]] if keyword_column else [[]] * len(rows)
    rows = encoded_images(rows, image_column, source)
    texts = datasets.List(datasets.Value("string"))
    rows = rows.add_column("captions", captions, feature=texts).add_column("keywords", keywords, feature=texts)
    return rows.cast_column("image", datasets.Image())


def load_pair_stream(
    source: str,
    split: str = "train",
    image_column: str = "image",
    caption_column: str | None = None,
    keyword_columns: Sequence[str] = (),
) -> IterableDataset:
    """The rows of [`load_pairs`] as a stream, images not decoded: nothing is fetched or written ahead."""
    datasets = require("datasets")
    features = _pair_features(datasets.Image(decode=False))
    if source == EASY_VQA:
        return _as_stream(load_pairs(source, split).cast(features))
    rows = load_rows(source, split, streaming=True)
    if isinstance(rows, datasets.Dataset):
        rows = _as_stream(rows)
    names = list(rows.features or next(iter(rows)))  # JSON Lines, read as they come, have no declared columns
    caption_column, keyword_column = _columns(source, names, image_column, caption_column, keyword_columns)
    if rows.features and isinstance(rows.features[image_column], datasets.Image):
        rows = rows.cast_column(image_column, datasets.Image(decode=False))

    def pair(row: dict[str, Any]) -> dict[str, Any]:
        return {
            "image": _encoded(row[image_column], source),
            "captions": _texts(row[caption_column]),
            "keywords": _texts(row[keyword_column]) if keyword_column else [],
        }

    return rows.map(pair, remove_columns=[name for name in names if name not in features], features=features)


def concatenate(sources: Sequence[Dataset], weights: Sequence[float] = (), seed: int = 0) -> Dataset:
    """The rows of several sources of the same form, those without a caption left out.

    Args:
        weights: How often rows of each source come, relative to each other. A pass then ends when every row has come,
            rows of the others more than once. Without weights every row comes once: the larger source, the more often.
        seed: Seed of the draws that weights decide.
    """
    datasets = require("datasets")
    features = _pair_features(datasets.Image())
    parts = [_with_captions(source.cast(features)) for source in sources]
    return _mix(parts, weights, seed) if weights else datasets.concatenate_datasets(parts)


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
    sources: Sequence[Dataset | IterableDataset], names: Sequence[str], stream_rows: int = 100_000
) -> Iterator[str]:
    """Every text that a vocabulary for these sources should know, easy-VQA's questions and answers included.

    Args:
        stream_rows: Of a stream, how many rows are read for it.
    """
    datasets = require("datasets")
    for rows in sources:
        texts = rows.select_columns(["captions", "keywords"])
        for row in texts if isinstance(rows, datasets.Dataset) else islice(texts, stream_rows):
            yield from row["captions"]
            yield from row["keywords"]
    if EASY_VQA in names:
        questions = load_easy_vqa("train")
        for column in ("question", "answer"):
            for row in questions[column]:
                yield from row


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
    return rows if len(kept) == len(rows) else rows.select(kept)


def _pair_features(image: Any) -> Features:
    datasets = require("datasets")
    texts = datasets.List(datasets.Value("string"))
    return datasets.Features(image=image, captions=texts, keywords=texts)


def _as_stream(rows: Dataset) -> IterableDataset:
    return rows.to_iterable_dataset(num_shards=max(1, min(_MAX_SHARDS, len(rows))))


def _columns(
    source: str, names: Sequence[str], image: str, caption: str | None, keywords: Sequence[str]
) -> tuple[str, str | None]:
    """The caption and the keyword column of a source with columns of these names."""
    found = next((name for name in CAPTION_COLUMNS if name in names), None) if caption is None else caption
    for option, column in (("image_column", image), ("caption_column", found)):
        if column not in names:
            what = f"column {column!r}" if column else f"column called {', '.join(CAPTION_COLUMNS)}"
            raise ValueError(f"{source} has no {what}; set {option} to one of {', '.join(names)}.")
    assert found is not None
    return found, next((name for name in keywords if name in names), None)


def _encoded(image: Any, source: str) -> Any:
    """An image as `datasets` keeps it, from a path or the bytes of a file."""
    if isinstance(image, str):
        return {"path": locate(image, source), "bytes": None}
    return {"path": None, "bytes": image} if isinstance(image, bytes) else image


def _texts(value: str | Sequence[str | None] | None) -> list[str]:
    """The texts of a cell, a string or a list of them; what is blank is none."""
    texts = [value] if isinstance(value, str) else value or []
    return [text.strip() for text in texts if text is not None and text.strip()]
