"""Arrow files, as of `datasets`, that a long job writes one by one, so that it can be resumed when interrupted.

A shard has a temporary name until it is complete; files with such a name are deleted on resuming. Columns are written
without copies into Arrow's memory, which would hold each shard up to two more times.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..extras import require
from ..model.messages_cbvila import shown
from ..output_files import write_json
from ..output_folders import UNFINISHED, remove_unfinished, require_same_description

if TYPE_CHECKING:
    from datasets import Dataset

_DESCRIPTION = "description.json"


class Shards:
    """A folder of shards, new or to be continued.

    Args:
        folder: The folder; made if it does not exist.
        description: What the rows are, as JSON values. A folder is continued only with the same description.

    Raises:
        ValueError: If the folder holds other files, or rows with another description.
    """

    def __init__(self, folder: str | Path, description: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_unfinished(self.folder)
        if not is_written(self.folder):
            if any(self.folder.iterdir()):
                raise ValueError(f"{folder} holds other files: give a folder that is empty, or not there yet.")
            write_json(self.folder / _DESCRIPTION, dict(description))
        require_same_description(folder, read_description(folder), description)
        self.rows = sum(len(table) for table in tables(self.folder))

    @property
    def complete(self) -> bool:
        """Whether all rows are written."""
        return bool(read_description(self.folder).get("complete"))

    def append(self, columns: Mapping[str, Any]) -> None:
        """Writes one shard. A column is an array (rows,) or (rows, n), or a list of arrays of any length."""
        self.extend([columns])

    def extend(self, parts: Iterable[Mapping[str, Any]], shard_bytes: float = float("inf")) -> None:
        """Writes parts into shards of about `shard_bytes`."""
        waiting = iter(parts)
        for first in waiting:
            with self._new_shard() as write:
                size = write(first)
                while size < shard_bytes and (part := next(waiting, None)) is not None:
                    size += write(part)

    @contextmanager
    def _new_shard(self) -> Iterator[Any]:
        """Gives a function that writes a part into a new shard, which exists once the block ends without an error."""
        arrow, ipc = require("pyarrow"), require("pyarrow.ipc")
        final = self._next_file()
        unfinished, rows, writer = final.with_name(final.name + UNFINISHED), 0, None
        with arrow.OSFile(str(unfinished), "wb") as file:

            def write(columns: Mapping[str, Any]) -> int:
                nonlocal rows, writer
                batch = arrow.RecordBatch.from_arrays([_arrow(values) for values in columns.values()], list(columns))
                writer = writer or ipc.new_stream(file, batch.schema)
                writer.write_batch(batch)
                rows += len(batch)
                return batch.nbytes

            yield write
            if writer is not None:
                writer.close()
        os.replace(unfinished, final)
        self.rows += rows

    def take(self, folder: Path) -> None:
        """Moves the shards of another folder behind those that are there."""
        rows = [len(table) for table in tables(folder)]
        for file, added in zip(shard_files(folder), rows, strict=True):
            os.replace(file, self._next_file())
            self.rows += added

    def _next_file(self) -> Path:
        return self.folder / f"shard-{len(shard_files(self.folder)):05d}.arrow"

    def values(self, column: str, row: int) -> list[Any]:
        """Returns one row of a column of lists without reading the others.

        Raises:
            IndexError: If there is no such row.
        """
        for table in tables(self.folder):
            if row < len(table):
                return table.column(column)[row].as_py()
            row -= len(table)
        raise IndexError(f"{self.folder} has no row {row}")

    def thin_out(self, wanted: Callable[[Any], np.ndarray]) -> None:
        """Writes shards anew of which less than half is wanted, without the rest; the others stay as they are.

        Args:
            wanted: Returns for an Arrow table which of its rows (n,) to keep.
        """
        arrow, ipc = require("pyarrow"), require("pyarrow.ipc")
        for file, table in zip(shard_files(self.folder), tables(self.folder), strict=True):
            kept = wanted(table)
            if 2 * kept.sum() >= len(table):
                continue
            unfinished = file.with_name(file.name + UNFINISHED)
            with arrow.OSFile(str(unfinished), "wb") as target, ipc.new_stream(target, table.schema) as writer:
                writer.write_table(table.filter(arrow.array(kept)))
            os.replace(unfinished, file)

    def describe(self, **entries: Any) -> None:
        """Adds entries to the description, or replaces them."""
        write_json(self.folder / _DESCRIPTION, {**read_description(self.folder), **entries})

    def finish(self) -> None:
        """Marks the folder as complete."""
        self.describe(complete=True)


def shard_files(folder: str | Path) -> list[Path]:
    """Returns the paths of the complete shards, in order."""
    return sorted(Path(folder).glob("shard-*.arrow"))


def read_shards(folder: str | Path) -> list[Dataset]:
    """Returns the shards as memory-mapped datasets."""
    datasets = require("datasets")
    return [datasets.Dataset.from_file(str(file)) for file in shard_files(folder)]


def tables(folder: str | Path) -> list[Any]:
    """Returns the shards as memory-mapped Arrow tables."""
    arrow, ipc = require("pyarrow"), require("pyarrow.ipc")
    return [ipc.open_stream(arrow.memory_map(str(file))).read_all() for file in shard_files(folder)]


def flat_values(array: Any, dtype: Any) -> np.ndarray:
    """Returns the numbers of an Arrow array, concatenated if its rows are lists, without a copy."""
    values = getattr(array, "values", array)
    return np.frombuffer(values.buffers()[1], dtype=dtype)[values.offset : values.offset + len(values)]


def _arrow(values: Any) -> Any:
    """Returns a column as an Arrow array without a copy (`pyarrow.array` would import pandas to test its type)."""
    arrow = require("pyarrow")
    ends = None
    if isinstance(values, list) and values and isinstance(values[0], np.ndarray):
        ends = np.cumsum([0, *map(len, values)], dtype=np.int32)
        values = np.concatenate(values)
    values = np.ascontiguousarray(values)
    if values.ndim == 2:
        ends = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    values = values.reshape(-1)
    kind = arrow.from_numpy_dtype(values.dtype)
    numbers = arrow.Array.from_buffers(kind, len(values), [None, arrow.py_buffer(values)])
    if ends is None:
        return numbers
    buffers = [None, arrow.py_buffer(ends.astype(np.int32))]
    return arrow.Array.from_buffers(arrow.list_(kind), len(ends) - 1, buffers, children=[numbers])


def is_written(folder: str | Path) -> bool:
    """Returns whether a path is a folder of shards.

    Raises:
        ValueError: If it is not a path.
    """
    if not isinstance(folder, str | os.PathLike):
        raise ValueError(f"folder={shown(folder)} must be the path of a folder.")
    try:
        return (Path(folder) / _DESCRIPTION).is_file()
    except (OSError, ValueError):  # not a valid file name
        return False


def read_description(folder: str | Path) -> dict[str, Any]:
    """Returns the description that [`Shards`] was given, with `complete` if all rows are written.

    Raises:
        FileNotFoundError: If it is not a folder of shards.
    """
    if not is_written(folder):
        raise FileNotFoundError(
            f"{shown(str(folder), 255)} is no folder that a gallery was written to: it has no {_DESCRIPTION}."
        )
    return json.loads((Path(folder) / _DESCRIPTION).read_text(encoding="utf-8"))
