"""Rows that a long job writes to disk part by part, so that it can be killed and go on: Arrow files, as of `datasets`.

A shard has a temporary name until it is whole, and what is found under such a name is thrown away. Columns are written
as they come and never copied into Arrow's memory, of which a shard would otherwise be a second and a third time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..extras import require
from ..model.messages_cbvila import shown
from ..output_files import write_json

if TYPE_CHECKING:
    from datasets import Dataset

_DESCRIPTION = "description.json"
_UNFINISHED = ".unfinished"


class Shards:
    """A folder of shards, new or one to go on in.

    Args:
        folder: Made when it isn't there.
        description: What the rows are of, in terms of JSON. Rows of anything else are not added to those there are.

    Raises:
        ValueError: If the folder holds something else, or rows of another description.
    """

    def __init__(self, folder: str | Path, description: Mapping[str, Any]):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob(f"*{_UNFINISHED}"):
            leftover.unlink()
        if not is_written(self.folder):
            if any(self.folder.iterdir()):
                raise ValueError(f"{folder} holds other files: give a folder that is empty, or not there yet.")
            write_json(self.folder / _DESCRIPTION, dict(description))
        there = read_description(folder)
        for name, wanted in description.items():
            if there.get(name) != wanted:
                raise ValueError(
                    f"{folder} was written with {name}={shown(there.get(name))} and this is {name}={shown(wanted)}: "
                    "give another folder, or delete this one to start again."
                )
        self.rows = sum(len(table) for table in tables(self.folder))

    @property
    def complete(self) -> bool:
        return bool(read_description(self.folder).get("complete"))

    def append(self, columns: Mapping[str, Any]) -> None:
        """Writes one shard of rows: of each column numbers, arrays of one length (rows, n), or a list of arrays."""
        self.extend([columns])

    def extend(self, parts: Iterable[Mapping[str, Any]], shard_bytes: float = float("inf")) -> None:
        """Writes rows part by part, a new shard from wherever one has grown to so many bytes."""
        waiting = iter(parts)
        for first in waiting:
            with self._new_shard() as write:
                size = write(first)
                while size < shard_bytes and (part := next(waiting, None)) is not None:
                    size += write(part)

    @contextmanager
    def _new_shard(self) -> Iterator[Any]:
        """What writes a part into a new shard, which is there when the block ends without an error."""
        arrow, ipc = require("pyarrow"), require("pyarrow.ipc")
        final = self.folder / f"shard-{len(shard_files(self.folder)):05d}.arrow"
        unfinished, rows, writer = final.with_name(final.name + _UNFINISHED), 0, None
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

    def values(self, column: str, row: int) -> list[Any]:
        """One row of a column of lists, read alone."""
        for table in tables(self.folder):
            if row < len(table):
                return table.column(column)[row].as_py()
            row -= len(table)
        raise IndexError(f"{self.folder} has no row {row}")

    def finish(self) -> None:
        """Notes that all rows are there."""
        write_json(self.folder / _DESCRIPTION, {**read_description(self.folder), "complete": True})


def shard_files(folder: str | Path) -> list[Path]:
    return sorted(Path(folder).glob("shard-*.arrow"))


def read_shards(folder: str | Path) -> list[Dataset]:
    """The shards as data sets, each mapped from disk and not read into memory."""
    datasets = require("datasets")
    return [datasets.Dataset.from_file(str(file)) for file in shard_files(folder)]


def tables(folder: str | Path) -> list[Any]:
    """The shards as Arrow tables, mapped in the same way."""
    arrow, ipc = require("pyarrow"), require("pyarrow.ipc")
    return [ipc.open_stream(arrow.memory_map(str(file))).read_all() for file in shard_files(folder)]


def flat_values(array: Any, dtype: Any) -> np.ndarray:
    """The numbers of an Arrow array, of all its rows on end if these are lists; in the same place."""
    values = getattr(array, "values", array)
    return np.frombuffer(values.buffers()[1], dtype=dtype)[values.offset : values.offset + len(values)]


def _arrow(values: Any) -> Any:
    """A column as an Arrow array in the same place (`pyarrow.array` would load pandas to look whether it is one)."""
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
    """Whether this is a folder of shards."""
    if not isinstance(folder, str | os.PathLike):
        raise ValueError(f"folder={shown(folder)} must be the path of a folder.")
    try:
        return (Path(folder) / _DESCRIPTION).is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def read_description(folder: str | Path) -> dict[str, Any]:
    """What [`Shards`] was given, and `complete` when all rows are there.

    Raises:
        FileNotFoundError: If nothing of the kind is there.
    """
    if not is_written(folder):
        raise FileNotFoundError(
            f"{shown(str(folder), 255)} is no folder that a gallery was written to: it has no {_DESCRIPTION}."
        )
    return json.loads((Path(folder) / _DESCRIPTION).read_text(encoding="utf-8"))
