"""The rows of a source, a file, a folder or a Hub data set, as they are, and which of its splits is meant."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..extras import require
from ..model.messages_cbvila import one_line, shown
from .builtin_source import BuiltinSource
from .builtin_sources import check_task, find_builtin
from .image_folders import image_folder_rows
from .images import is_complete, locate
from .source_files import SourceFiles, find_source, kind_of, shown_name
from .tables import load_tables
from .tar_rows import tar_rows

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

_SAID = 600  # characters of what a reader says is wrong with a file


def load_rows(
    source: str, split: str, streaming: bool = False, task: str = "pretraining"
) -> Dataset | IterableDataset:
    """Returns the rows of a source as they are.

    Texts of CSV files stay as they are written. Local data in another form than tables come as a `Dataset`, with
    `streaming` as well.

    Datasets of the Hub that a script of their own makes, which `datasets` no longer runs, have their rows as Parquet
    in the revision `refs/convert/parquet`.

    Args:
        source: See [`load_pairs`]. A Hub id may name a revision: `"user/name@revision"`.
        split: A split, a part of one ("test[:100]"), or several ("train+test").
        streaming: Whether to return a stream where there can be one.
        task: What the rows are for: a built-in source may have others for each task; the rest has the same for all.

    Raises:
        FileNotFoundError: If the source is a path and isn't there.
        ValueError: If it cannot be read, has no such split or, built in, no rows for the task.
    """
    datasets = require("datasets")
    builtin = find_builtin(source)
    if builtin is not None:
        check_task(source, builtin, task)
    found = find_source(source)
    try:
        if builtin is not None:
            return _builtin_rows(builtin, split, task, streaming)
        if found is None:
            name, revision = _name_and_revision(source)
            return datasets.load_dataset(name, revision=revision, split=split, streaming=streaming)
        return _local_rows(found, split, streaming)
    except (ValueError, RuntimeError, OSError, StopIteration, datasets.exceptions.DatasetsError) as error:
        # datasets does not say what it was reading, and says in an error's cause what was wrong with it
        raise ValueError(f"{shown_name(source)} (split {split}) cannot be read: {_innermost(error)}") from error


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
        place = image_locator(source)
        rows = datasets.Dataset.from_dict({"image": [place(path) for path in rows["image"]]}, split=rows.split)
    return rows.cast_column("image", datasets.Image(decode=False))


def image_locator(source: str) -> Callable[[Any], Any]:
    """What makes complete paths of those that a source's rows have; other values are left as they are."""
    look = cache(lambda: find_source(source))  # large folders take long to list

    def place(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if not value or is_complete(value):
            return value or None
        found = look()
        if found is None:
            return value
        if found.folder is None:
            raise ValueError(
                f"Image {shown(value)} of {shown_name(source)} counts from the folder of its file, and the pattern "
                "has several: name the folders one by one, or give complete paths."
            )
        return locate(value, found.folder)

    return place


def _builtin_rows(source: BuiltinSource, split: str, task: str, streaming: bool) -> Dataset | IterableDataset:
    if streaming and split in source.splits:
        return source.rows(split, task, streaming=True)
    splits = {name: [name] for name in source.splits}
    return _part(_Read(splits, lambda names: source.rows(names[0], task)), split)


def _local_rows(found: SourceFiles, split: str, streaming: bool) -> Dataset | IterableDataset:
    datasets = require("datasets")
    if found.kind == "card":
        return datasets.load_dataset(found.folder, split=split, streaming=streaming)
    if found.kind == "splits":
        return _part(datasets.load_from_disk(found.folder), split)
    if found.kind == "rows":
        return _part({"": datasets.load_from_disk(found.folder)}, split)
    if found.kind == "images":
        return _part(_Read(found.splits, lambda files: image_folder_rows(found.name, files, _whole_table)), split)
    if found.kind == "tar" and not streaming:
        return _part(_Read(found.splits, tar_rows), split)
    name = split.partition("[")[0]
    splits = {name: found.splits[""]} if "" in found.splits else found.splits
    if found.kind == "tar" and split in splits:
        return tar_rows(splits[split], streaming=True)
    return load_tables(found.kind, splits, split, streaming)


class _Read(Mapping):
    """Splits that are read when they are asked for."""

    def __init__(self, splits: Mapping[str, Sequence[str]], read: Callable[[Sequence[str]], Any]):
        self._splits, self._read = splits, read

    def __getitem__(self, name: str) -> Any:
        return self._read(self._splits[name])

    def __contains__(self, name: object) -> bool:
        return name in self._splits

    def __iter__(self):
        return iter(self._splits)

    def __len__(self) -> int:
        return len(self._splits)


def splits_in(split: str) -> list[str]:
    """Returns the names of the splits in "train", "test[:100]" or "train+test"."""
    return list(dict.fromkeys(part.partition("[")[0] for part in split.split("+")))


def _part(splits: Mapping[str, Dataset], split: str) -> Dataset:
    """Returns the rows that `split` names, a split, a part of one ("test[:100]"), or several ("train+test")."""
    datasets = require("datasets")
    wanted = splits_in(split)
    rows = {name: splits["" if "" in splits else name] for name in wanted if name in splits or "" in splits}
    names = [name for name in dict.fromkeys([*splits, *rows]) if name]
    lengths = {name: len(rows[name]) if name in rows else 0 for name in names}
    instructions = datasets.ReadInstruction.from_spec(split).to_absolute(lengths)
    parts = [rows[part.splitname].select(range(part.from_, part.to)) for part in instructions]
    return parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)


def _whole_table(file: str) -> Dataset:
    return load_tables(str(kind_of(file)), {"train": [file]}, "train", streaming=False)


def _split_names(source: str) -> list[str] | None:
    """Names of the splits of a source; None if it goes by any, or if they are not known before it is read."""
    datasets = require("datasets")
    builtin = find_builtin(source)
    if builtin is not None:
        return list(builtin.splits)
    found = find_source(source)
    if found is not None and found.kind == "splits":
        return json.loads((Path(str(found.folder)) / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
    if found is not None and found.kind != "card":
        return found.split_names
    name, revision = _name_and_revision(source)
    try:
        return datasets.get_dataset_split_names(name, revision=revision)
    except datasets.inspect.SplitsNotFoundError:  # such as a Hub data set that is in the cache, without a network
        return None


def _innermost(error: BaseException) -> str:
    """What the first cause of an error says, in a line; an empty file stops readers that await a line."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, StopIteration) or "corresponds to no data" in str(error):
        return "it has no rows"
    return one_line(str(error), _SAID) or type(error).__name__


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
