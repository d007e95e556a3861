"""What is known of indexed items beside their embeddings: names of files and metadata, as `items.jsonl` keeps them."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..model.item_lists_cbvila import items_of
from ..model.messages_cbvila import shown
from ..output_folders import UNFINISHED

ITEMS = "items.jsonl"


@dataclass(frozen=True)
class PictureEntry:
    """A picture file when it was read: a line of `items.jsonl`.

    Args:
        file_name: Its path relative to the folder of the pictures, with `/` between folders.
        size: Bytes.
        mtime_ns: Time of its last change.
        content: A hash of its bytes, by which its embedding is found; None if it could not be read.
        error: Why it could not be read.
    """

    file_name: str
    size: int
    mtime_ns: int
    content: int | None = None
    error: str | None = None

    def is_of(self, other: "PictureEntry") -> bool:
        """Returns whether the file is unchanged, by name, size and time."""
        mine, others = ((each.file_name, each.size, each.mtime_ns) for each in (self, other))
        return mine == others


@dataclass(frozen=True)
class IndexedItems:
    """Names and metadata of indexed items.

    Args:
        files: The file of each item, if they are the pictures of a folder.
        metadata: For each item its columns; empty if items have none.
        left_out: Files that could not be read, with the reason.
    """

    files: list[Path] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)
    left_out: dict[Path, str] = field(default_factory=dict)


def write_items(folder: Path, items: IndexedItems) -> None:
    """Writes names and metadata beside a gallery, a line for each item; removes them if there are none."""
    if not items.metadata:
        (folder / ITEMS).unlink(missing_ok=True)
        return
    files: list[str | None] = [str(file.absolute()) for file in items.files] or [None] * len(items.metadata)
    lines = ({"file": file, "metadata": row} for file, row in zip(files, items.metadata, strict=True))
    _write(folder, lines)


def read_items(folder: Path) -> IndexedItems:
    """Returns what [`write_items`] wrote."""
    lines = list(_lines(folder))
    return IndexedItems([Path(line["file"]) for line in lines if line["file"]], [line["metadata"] for line in lines])


def write_entries(folder: Path, entries: Iterable[PictureEntry], metadata: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes the pictures of a folder with their metadata, which are by file name."""
    _write(folder, ({**vars(entry), "metadata": metadata.get(entry.file_name, {})} for entry in entries))


def append_entries(folder: Path, entries: Iterable[PictureEntry]) -> None:
    """Adds pictures; one that is there already is meant anew from then on."""
    with open(folder / ITEMS, "a", encoding="utf-8") as file:
        file.writelines(_line({**vars(entry), "metadata": {}}) for entry in entries)


def read_entries(folder: Path) -> tuple[dict[str, PictureEntry], dict[str, dict[str, Any]]]:
    """Returns the pictures of a folder and their metadata, both by file name, in the order of the file."""
    entries, metadata = {}, {}
    for line in _lines(folder):
        of_picture = line.pop("metadata")
        entries[line["file_name"]] = PictureEntry(**line)
        metadata[line["file_name"]] = of_picture
    return entries, metadata


def _write(folder: Path, values: Iterable[Mapping[str, Any]]) -> None:
    file = folder / ITEMS
    unfinished = file.with_name(file.name + UNFINISHED)
    unfinished.write_text("".join(map(_line, values)), encoding="utf-8")
    os.replace(unfinished, file)


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value) + "\n"  # in ASCII, which also has names of files that are no UTF-8


def _lines(folder: Path) -> Iterable[dict[str, Any]]:
    file = folder / ITEMS
    if not file.is_file():
        return
    with open(file, encoding="utf-8") as lines:
        for line in lines:
            if line.endswith("\n"):  # the last one of a run that was killed may be cut
                yield json.loads(line)


def check_one_for_each(metadata: Sequence[Any], items: str, count: int) -> None:
    """Raises a ValueError unless there are as many rows of metadata as items, which are called `items`."""
    if len(metadata) != count:
        raise ValueError(f"metadata has {len(metadata):,} rows, and there are {count:,} {items}: give one for each.")


def metadata_rows(metadata: Any) -> list[dict[str, Any]]:
    """Returns metadata as a list.

    Args:
        metadata: Dictionaries of columns, in a list, a dataset or a generator.

    Raises:
        ValueError: If it is something else, or a value is none that JSON has.
    """
    rows = []
    for number, row in enumerate(items_of(metadata, "metadata")):
        if not isinstance(row, Mapping):
            raise ValueError(f"metadata[{number}] is {shown(row)}: each item has a dictionary of its columns.")
        try:
            json.dumps(dict(row))
        except (TypeError, ValueError) as error:
            raise ValueError(f"metadata[{number}] cannot be stored as JSON: {error}.") from error
        rows.append(dict(row))
    return rows


def metadata_by_file(metadata: Any, files: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Returns the metadata of a folder's pictures by file name.

    Args:
        metadata: Dictionaries of columns, as the lines of a metadata.jsonl: each with `file_name`.
        files: Names of the pictures, relative to the folder.

    Raises:
        ValueError: As of [`metadata_rows`], and if a row has no `file_name`, or one of no picture.
    """
    known, found = set(files), {}
    for number, row in enumerate(metadata_rows(metadata)):
        if "file_name" not in row:
            raise ValueError(
                f"metadata[{number}] has no file_name, which says whose it is; it has {shown(list(row), 200)}."
            )
        if row["file_name"] not in known:
            raise ValueError(
                f"metadata[{number}] is of {shown(row['file_name'], 255)}, and the folder has no picture of that "
                "name: paths are relative to the folder, with / between folders."
            )
        found[row["file_name"]] = row
    return found
