"""Image-caption pairs of a source, whole or as a stream, in one form of rows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from transformers.utils import logging

from ..extras import require
from ..model.messages_cbvila import shown
from .bad_rows import FAULT, reason, summary_of_bad_rows
from .builtin_sources import find_builtin
from .column_names import CAPTION_COLUMNS, LABEL_MAP_COLUMNS, NEGATIVE_CAPTION_COLUMNS
from .columns import find_column, find_image_column, usual_column
from .label_maps import drawn_label_map
from .pair_reader import TEXTS, Columns, LabelColumns, PairReader, pair_features
from .source_images import encoded_images
from .source_rows import load_rows

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

logger = logging.get_logger(__name__)

_MAX_SHARDS = 64  # of a stream over local rows: what processes and workers can divide among them


def load_pairs(
    source: str | os.PathLike,
    split: str = "train",
    image_column: str = "image",
    caption_column: str | None = None,
    keyword_columns: Sequence[str] = (),
    skip_bad_rows: bool = False,
    with_labels: bool = False,
    label_map_column: str | None = None,
) -> Dataset:
    """Loads image-caption pairs: `image` (of any mode), `captions`, `keywords`, `negative_captions` and `origin`.

    Args:
        source: A folder of images with a metadata.jsonl or metadata.csv, or with a .txt beside each whose lines are
            its captions, of Parquet files, or written by `save_to_disk`; a Parquet, JSON Lines, CSV, TSV or WebDataset
            .tar file, or a pattern of several (`"data/*.parquet"`); the id of a Hub dataset; or the name of a built-in
            source, such as `"easy-vqa"`. Paths in columns are relative to the folder, or to the file's.
        split: A split, a part of one ("train[:100]"), or several ("train+validation").
        image_column: Column with the images; without a column `image`, `file_name` is used for it.
        caption_column: Column with a caption or a list of captions per image (of a `ClassLabel`, its name); by
            default the first of `CAPTION_COLUMNS` that the source has.
        keyword_columns: Columns with a list of keywords; the first that the source has is used.
        skip_bad_rows: Whether to leave out rows whose captions are not texts, with a warning that counts them,
            instead of raising an error. Images are not read here.
        with_labels: Whether rows also have `label_map` and `label_classes`, which [`LabelMaps`] reads.
        label_map_column: Column with label maps, images with the number of a class in each pixel; by default the first
            of `LABEL_MAP_COLUMNS` that the source has, or what a built-in source draws. Where a source also has
            `objects` as scenes have them, value i stands for the i-th object.

    Returns:
        The rows. `captions`, `keywords` and `negative_captions` (of the first of `NEGATIVE_CAPTION_COLUMNS` that the
        source has, see [`PairDraws`]) are lists of strings, empty where there are none; `origin` is what an error
        calls the row.

    Raises:
        FileNotFoundError: If the source is a path and isn't there.
        ValueError: If the source has no such split or column (the message lists those it has), or a caption is not a
            text.
    """
    source = os.fspath(source)
    _require_labels(with_labels, label_map_column)
    table = load_rows(source, split)
    columns = _columns(source, table.column_names, image_column, caption_column, keyword_columns)
    if with_labels:
        columns = columns._replace(labels=_label_columns(source, table.column_names, label_map_column))
    return _pairs(source, table, columns, skip_bad_rows).cast_column("image", require("datasets").Image())


def load_pair_stream(
    source: str | os.PathLike,
    split: str = "train",
    image_column: str = "image",
    caption_column: str | None = None,
    keyword_columns: Sequence[str] = (),
    skip_bad_rows: bool = False,
    with_labels: bool = False,
    label_map_column: str | None = None,
) -> IterableDataset:
    """Loads the rows of [`load_pairs`] as a stream, images not decoded; nothing is fetched or written ahead.

    With `skip_bad_rows`, rows whose captions are not texts have the reason in a column `fault`;
    [`StreamedImageTextPairs`] replaces them by others, and counts them.
    """
    datasets = require("datasets")
    source = os.fspath(source)
    _require_labels(with_labels, label_map_column)
    rows = load_rows(source, split, streaming=True)
    names = list(rows.features or next(iter(rows)))  # JSON Lines of the Hub declare no columns
    columns = _columns(source, names, image_column, caption_column, keyword_columns)
    if with_labels:
        columns = columns._replace(labels=_label_columns(source, names, label_map_column))
    if isinstance(rows, datasets.Dataset):
        return _as_stream(_pairs(source, rows, columns, skip_bad_rows), skip_bad_rows)
    for name in (columns.image, columns.labels and columns.labels.label_map):
        if rows.features and name and isinstance(rows.features[name], datasets.Image):
            rows = rows.cast_column(name, datasets.Image(decode=False))
    reader = PairReader(source, columns, rows.features or {}, counts_rows=rows.num_shards == 1)
    options = {"remove_columns": names, "features": pair_features(skip_bad_rows, with_labels), "with_indices": True}
    return rows.map(reader.or_fault if skip_bad_rows else reader, **options)


def _require_labels(with_labels: bool, label_map_column: str | None) -> None:
    if label_map_column is not None and not with_labels:
        raise ValueError(f"label_map_column={shown(label_map_column)} is read with with_labels=True; set both.")


def _pairs(source: str, table: Dataset, columns: Columns, skip_bad_rows: bool) -> Dataset:
    """Returns the pairs of rows that can be indexed, images not decoded."""
    images = encoded_images(table, columns.image, source)
    reader = PairReader(source, columns, table.features)
    with_labels = columns.labels is not None
    names = (*TEXTS, "origin", *(["label_classes"] if with_labels else []))
    pairs: dict[str, list[Any]] = {name: [] for name in names}
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
    features = pair_features(with_labels=with_labels)
    if columns.labels is not None:
        images = _with_label_maps(images, table, columns.labels, source)
    images = images if not faults else images.select(kept)
    # `add_column` pickles each value to hash a column, which takes as long as to read it.
    datasets = require("datasets")
    texts = datasets.Dataset.from_dict(pairs, features=datasets.Features({name: features[name] for name in pairs}))
    return datasets.concatenate_datasets([images, texts], axis=1)


def _with_label_maps(images: Dataset, table: Dataset, labels: LabelColumns, source: str) -> Dataset:
    """Returns rows of images, not decoded, with the column `label_map` of the source's rows, not decoded either."""
    datasets = require("datasets")
    if labels.label_map is None:
        drawn = [drawn_label_map(image) for image in images["image"]] if find_builtin(source) else [None] * len(images)
        return images.add_column("label_map", drawn, feature=datasets.Image(decode=False))
    maps = encoded_images(table, labels.label_map, source).rename_column("image", "label_map")
    return datasets.concatenate_datasets([images, maps], axis=1)


def _label_columns(source: str, names: Sequence[str], given: str | None) -> LabelColumns:
    """Returns the columns of label maps in a source with these columns. ValueError if it lacks a given one."""
    column = given and find_column(given, LABEL_MAP_COLUMNS, names, source, "label_map_column")
    return LabelColumns(column or usual_column(LABEL_MAP_COLUMNS, names), usual_column(("objects",), names))


def _as_stream(rows: Dataset, with_faults: bool) -> IterableDataset:
    if with_faults:  # other streams may have some
        rows = rows.add_column(FAULT, [None] * len(rows), feature=pair_features(with_faults)[FAULT])
    return rows.to_iterable_dataset(num_shards=max(1, min(_MAX_SHARDS, len(rows))))


def _columns(source: str, names: Sequence[str], image: str, caption: str | None, keywords: Sequence[str]) -> Columns:
    """Returns the columns to read in a source with columns of these names. ValueError if it lacks one."""
    images = find_image_column(image, names, source)
    captions = find_column(caption, CAPTION_COLUMNS, names, source, "caption_column")
    return Columns(images, captions, usual_column(keywords, names), usual_column(NEGATIVE_CAPTION_COLUMNS, names))
