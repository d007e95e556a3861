"""The rows of a source, a file, a folder or a Hub data set, as they are, and which of its splits is meant."""

from __future__ import annotations

import glob
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..extras import require

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

EASY_VQA = "easy-vqa"  # the name that stands for the PyPI package instead of a folder
_FORMATS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv"}


def load_rows(source: str, split: str, streaming: bool = False) -> Dataset | IterableDataset:
    """The rows of a source as they are; see [`load_pairs`]. A Hub id may name a revision: `"user/name@revision"`.

    Data sets of the Hub that are made by a script of their own, which `datasets` runs no longer, have their rows as
    Parquet in the revision `refs/convert/parquet`.
    """
    datasets = require("datasets")
    path = Path(source)
    _check_is_there(source)
    if (path / "dataset_dict.json").is_file():
        parts = datasets.load_from_disk(source)
        if split not in parts:
            raise ValueError(f"{source} has no split {split!r}; it has {', '.join(parts)}.")
        return parts[split]
    if _is_saved_rows(path):
        return datasets.load_from_disk(source)
    try:
        if path.suffix in _FORMATS:
            files = {split.partition("[")[0]: source}  # "test[:100]" is a part of a split
            return datasets.load_dataset(_FORMATS[path.suffix], data_files=files, split=split, streaming=streaming)
        name, revision = _name_and_revision(source)
        return datasets.load_dataset(name, revision=revision, split=split, streaming=streaming)
    except (ValueError, RuntimeError, StopIteration, datasets.exceptions.DatasetsError) as error:
        # datasets does not say what it was reading, and says in an error's cause what was wrong with it
        raise ValueError(f"{source} (split {split}) cannot be read: {_innermost(error)}") from error


def usual_split(sources: Sequence[str], preferred: Sequence[str] = ("test", "validation")) -> str:
    """The split to take where none is named: the first of `preferred` that all sources have, or their only one.

    Single files, and rows that `save_to_disk` wrote without splits, go by any name.

    Raises:
        FileNotFoundError: If a source is a path and isn't there.
        ValueError: If no split is common to all, or several are and none is preferred; the message lists them.
    """
    splits = {source: names for source in sources if (names := _split_names(source)) is not None}
    if not splits:
        return preferred[0]
    common = [name for name in next(iter(splits.values())) if all(name in names for names in splits.values())]
    chosen = [name for name in preferred if name in common] or common
    if not chosen or (len(chosen) > 1 and chosen[0] not in preferred):
        found = "; ".join(f"{source} has {', '.join(names)}" for source, names in splits.items())
        raise ValueError(f"There is no split {' or '.join(preferred)}: {found}. Name one as the split.")
    return chosen[0]


def encoded_images(rows: Dataset, column: str, source: str) -> Dataset:
    """One column of a source's rows as the only one, `image`, not decoded. ValueError if it holds anything else."""
    datasets = require("datasets")
    rows = rows.select_columns([column])
    _check_holds_images(rows.features[column], column, source)
    if column != "image":
        rows = rows.rename_column(column, "image")
    if getattr(rows.features["image"], "dtype", None) in ("string", "large_string"):  # the latter of CSV files
        paths = [None if path is None else locate(path, source) for path in rows["image"]]
        rows = datasets.Dataset.from_dict({"image": paths}, split=rows.split)
    return rows.cast_column("image", datasets.Image(decode=False))


def _split_names(source: str) -> list[str] | None:
    """Names of the splits of a source; None if it goes by any, or if they are not known before it is read."""
    datasets = require("datasets")
    path = Path(source)
    if source == EASY_VQA:
        return ["train", "test"]
    _check_is_there(source)
    if path.suffix in _FORMATS or _is_saved_rows(path):
        return None
    if (path / "dataset_dict.json").is_file():
        return json.loads((path / "dataset_dict.json").read_text())["splits"]
    name, revision = _name_and_revision(source)
    try:
        return datasets.get_dataset_split_names(name, revision=revision)
    except datasets.inspect.SplitsNotFoundError:  # such as a Hub data set that is in the cache, without a network
        return None


def _check_is_there(source: str) -> None:
    """Raises a FileNotFoundError if a source can only be a path, and isn't there."""
    path = Path(source)
    if path.suffix in _FORMATS:
        there = bool(glob.glob(source))
    else:
        name, _ = _name_and_revision(source)
        is_path = path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1
        there = path.is_dir() or not is_path
    if not there:
        raise FileNotFoundError(f"{source} isn't there: give a file, a pattern of files, a folder or a Hub id.")


def _innermost(error: BaseException) -> str:
    """What the first cause of an error says, in a line; an empty file stops readers that await a line."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, StopIteration) or "corresponds to no data" in str(error):
        return "it has no rows"
    return " ".join(str(error).split()) or type(error).__name__


def _is_saved_rows(path: Path) -> bool:
    """Whether `Dataset.save_to_disk` wrote a folder: rows without splits."""
    return (path / "dataset_info.json").is_file() and (path / "state.json").is_file()


def _name_and_revision(source: str) -> tuple[str, str | None]:
    """A Hub id without its revision, and this; the name of a folder may have an @."""
    name, _, revision = source.partition("@")
    return (name, revision) if revision and not Path(source).is_dir() else (source, None)


def _check_holds_images(feature: Any, column: str, source: str) -> None:
    """Images of `datasets`, records of bytes and path, paths, or the bytes of files."""
    datasets = require("datasets")
    is_record = isinstance(feature, dict) and {"bytes", "path"} <= set(feature)
    kinds = ("string", "large_string", "binary", "large_binary", "null")
    if isinstance(feature, datasets.Image) or is_record or getattr(feature, "dtype", None) in kinds:
        return
    if isinstance(feature, datasets.List | datasets.LargeList | list):
        raise ValueError(
            f"Column {column!r} of {source} holds lists; expected an image in each row. Give every image of a row a "
            "column of its own, and name them all as image_column."
        )
    raise ValueError(
        f"Column {column!r} of {source} holds {getattr(feature, 'dtype', feature)}; expected images, paths or the "
        "bytes of image files. Name another as image_column."
    )


def locate(path: str, source: str) -> str:
    """An image's path as a file, or a folder of files, names it: from that folder, unless it is complete."""
    if "://" in path or Path(path).is_absolute():
        return path
    folder = Path(source) if Path(source).is_dir() else Path(source).parent
    if glob.has_magic(str(folder)):
        raise ValueError(
            f"Image {path!r} of {source} counts from the folder of its file, and the pattern has several: name the "
            "folders one by one, or give complete paths."
        )
    return str(folder / path)
