"""The rows of a source as they are, and the split that is read where none is named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..extras import require
from ..model.messages_cbvila import one_line
from ..nearest import nearest
from .builtin_source import BuiltinSource
from .builtin_sources import BUILTIN_SOURCES, check_task, find_builtin
from .image_folders import image_folder_rows
from .source_files import SourceFiles, find_source, kind_of, shown_name
from .splits import LazySplits, StreamedPart, select_split, splits_in
from .tables import load_tables
from .tar_rows import tar_rows

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

ALL_ROWS = "all"  # in records, the split of rows that go by any name
_SAID = 600  # characters of a reader's message


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
        streaming: Whether to return a stream where there can be one. Several splits, and parts of one in percent or
            from the end, need the number of rows, and come as a `Dataset`.
        task: What the rows are for: a built-in source may have others for each task; the rest has the same for all.

    Raises:
        FileNotFoundError: If the source is a path and isn't there.
        ValueError: If it cannot be read, has no such split or, built in, no rows for the task.
    """
    datasets = require("datasets")
    builtin = find_builtin(source)
    if builtin is not None:
        check_task(source, builtin, task)
    origin = builtin or find_source(source)
    part = StreamedPart.of(split) if streaming else None
    try:
        if part is None:
            return _rows(source, origin, split, task, streaming=False)
        rows = _rows(source, origin, part.name, task, streaming=True)
        return select_split({part.name: rows}, split) if isinstance(rows, datasets.Dataset) else part(rows)
    except (ValueError, RuntimeError, OSError, StopIteration, datasets.exceptions.DatasetsError) as error:
        # datasets does not say what it was reading; the cause of its error says what is wrong
        said = f"{shown_name(source)} (split {split}) cannot be read: {_innermost(error)}"
        raise ValueError(said + (_no_folder(source) if origin is None else "")) from error


def _no_folder(source: str) -> str:
    """Returns the end of a message that a name was taken for one of the Hub."""
    return f"; no file or folder here has this name{nearest(source.partition('[')[0], BUILTIN_SOURCES)}"


def _rows(
    source: str, origin: BuiltinSource | SourceFiles | None, split: str, task: str, streaming: bool
) -> Dataset | IterableDataset:
    if origin is None:
        name, revision = _name_and_revision(source)
        return require("datasets").load_dataset(name, revision=revision, split=split, streaming=streaming)
    if isinstance(origin, SourceFiles):
        return _local_rows(origin, split, streaming)
    return _builtin_rows(origin, split, task, streaming)


def usual_split(sources: Sequence[str], preferred: Sequence[str] = ("test", "validation")) -> str:
    """Returns the split to read where none is named: the first of `preferred` that all sources have, or the only one.

    Single files, and rows that `save_to_disk` wrote without splits, go by any name.

    Args:
        sources: See [`load_pairs`].
        preferred: Names of splits.

    Raises:
        FileNotFoundError: If a source is a path and isn't there.
        ValueError: If no split is common to all, or several are and none of them is preferred; the message lists
            them.
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


def split_as_read(sources: Sequence[str], split: str) -> str:
    """Returns a split as a record is to name it: "all" in place of a name, if no source has rows by splits.

    Args:
        sources: See [`load_pairs`].
        split: A split, a part of one ("test[:100]"), or several.
    """
    if len(splits_in(split)) > 1 or any(_split_names(source) is not None for source in sources):
        return split
    if any(find_source(source) is None for source in sources):  # of the Hub, whose splits are unknown offline
        return split
    return ALL_ROWS + split.removeprefix(splits_in(split)[0])


def _builtin_rows(source: BuiltinSource, split: str, task: str, streaming: bool) -> Dataset | IterableDataset:
    if streaming and split in source.splits:
        return source.rows(split, task, streaming=True)
    splits = {name: [name] for name in source.splits}
    return select_split(LazySplits(splits, lambda names: source.rows(names[0], task)), split)


def _local_rows(found: SourceFiles, split: str, streaming: bool) -> Dataset | IterableDataset:
    datasets = require("datasets")
    if found.kind == "card":
        return datasets.load_dataset(found.folder, split=split, streaming=streaming)
    if found.kind == "splits":
        return select_split(datasets.load_from_disk(found.folder), split)
    if found.kind == "rows":
        return select_split({"": datasets.load_from_disk(found.folder)}, split)
    if found.kind == "images":
        return select_split(
            LazySplits(found.splits, lambda files: image_folder_rows(found.name, files, _whole_table)), split
        )
    if found.kind == "tar" and not streaming:
        return select_split(LazySplits(found.splits, tar_rows), split)
    splits = dict.fromkeys(splits_in(split), found.splits[""]) if "" in found.splits else found.splits
    if found.kind == "tar" and split in splits:
        return tar_rows(splits[split], streaming=True)
    return load_tables(found.kind, splits, split, streaming)


def _whole_table(file: str) -> Dataset:
    return load_tables(str(kind_of(file)), {"train": [file]}, "train", streaming=False)


def _split_names(source: str) -> list[str] | None:
    """Returns the names of a source's splits; None if it goes by any, or if they are unknown before it is read."""
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
    except datasets.inspect.SplitsNotFoundError:  # such as of a Hub dataset in the cache, without a network
        return None


def _innermost(error: BaseException) -> str:
    """Returns what the first cause of an error says, in a line; readers stop at an empty file."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, StopIteration) or "corresponds to no data" in str(error):
        return "it has no rows"
    return one_line(str(error), _SAID) or type(error).__name__


def _name_and_revision(source: str) -> tuple[str, str | None]:
    """Returns a Hub id without its revision, and the revision; names of folders may have an @."""
    name, _, revision = source.partition("@")
    return (name, revision) if revision and not Path(source).is_dir() else (source, None)
