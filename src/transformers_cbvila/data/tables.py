"""Tables in Parquet, Arrow, JSON and CSV files, whose texts stay as they are written."""

from __future__ import annotations

import glob
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..extras import require
from .splits import splits_in

if TYPE_CHECKING:
    from datasets import Dataset, Features, IterableDataset

_CSV = {"csv": ",", "tsv": "\t"}  # separators
_CUT = "Length of header or names does not match"  # start of the warning of pandas that it cuts rows
_GUESSED = ("timestamp", "date", "time", "duration")  # types that readers of JSON guess for texts


def load_tables(
    kind: str, splits: Mapping[str, Sequence[str]], split: str, streaming: bool
) -> Dataset | IterableDataset:
    """Returns the rows of a split of files that hold tables.

    All columns of CSV files are texts: "007", "1.50", "None" and "NA" stay so, and an empty cell is "". Texts of JSON
    files that look like dates stay texts; its numbers are numbers.

    Args:
        kind: "parquet", "arrow", "json", "csv" or "tsv".
        splits: Files by split; their names are not patterns.
        split: A split, a part of one, or several, as `datasets` takes it.
        streaming: Whether to return a stream.
    """
    datasets = require("datasets")
    # escaped as complete paths: the name of the current folder may look like a pattern
    files = {name: [glob.escape(os.path.abspath(file)) for file in files] for name, files in splits.items()}
    options: dict[str, Any] = {"data_files": files, "split": split}
    if kind in _CSV:
        with _no_cell_is_lost():
            return _load_csv({"sep": _CSV[kind], "na_filter": False, "index_col": False}, options, streaming)
    rows = datasets.load_dataset(kind, **options, streaming=streaming)
    if kind != "json":
        return rows
    if rows.features is None:  # one list, which cannot be streamed
        return load_tables(kind, splits, split, streaming=False)
    exact = _with_texts(rows.features)
    if exact == rows.features:
        return rows
    return datasets.load_dataset("json", **options, streaming=streaming, features=exact)


def _load_csv(csv: dict[str, Any], options: dict[str, Any], streaming: bool) -> Dataset | IterableDataset:
    datasets = require("datasets")
    # the types of columns cannot be given without their names
    whole = options | {"split": splits_in(options["split"])[0]}
    first = next(iter(datasets.load_dataset("csv", **whole, streaming=True, **csv)))
    features = datasets.Features(dict.fromkeys(first, datasets.Value("string")))
    return datasets.load_dataset("csv", **options, streaming=streaming, features=features, **csv)


@contextmanager
def _no_cell_is_lost() -> Iterator[None]:
    """Turns the warning of pandas that it cuts rows with more cells than the header into a ValueError.

    (Without `index_col=False` pandas would take the first cells of such rows as their index.)
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", _CUT)
            yield
    except Warning as warning:
        if not str(warning).startswith(_CUT):
            raise
        raise ValueError(
            "rows have more cells than the header has names: name all columns, and put texts with a comma in quotes"
        ) from None


def _with_texts(features: Features) -> Features:
    """Returns the features, with JSON instead of guessed types for columns of texts."""
    datasets = require("datasets")
    return datasets.Features(
        {name: datasets.Json() if _is_guessed(feature) else feature for name, feature in features.items()}
    )


def _is_guessed(feature: Any) -> bool:
    if isinstance(feature, Mapping):
        return any(map(_is_guessed, feature.values()))
    inner = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", None)
    return _is_guessed(inner) if inner is not None else str(getattr(feature, "dtype", "")).startswith(_GUESSED)
