"""Rows that a long job writes to disk part by part, so that it can be killed and go on: Arrow files of `datasets`.

A shard has a temporary name until it is whole, and what is found under such a name is thrown away.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..extras import require

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor

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
            self._write(_DESCRIPTION, dict(description))
        there = read_description(folder)
        for name, wanted in description.items():
            if there.get(name) != wanted:
                raise ValueError(
                    f"{folder} was written with {name}={there.get(name)!r} and this is {name}={wanted!r}: "
                    "give another folder, or delete this one to start again."
                )
        self.rows = sum(len(part) for part in read_shards(self.folder))

    @property
    def complete(self) -> bool:
        return bool(read_description(self.folder).get("complete"))

    def append(self, columns: Mapping[str, Any]) -> None:
        """Writes one shard of rows."""
        final = self.folder / f"shard-{len(shard_files(self.folder)):05d}.arrow"
        unfinished = final.with_name(final.name + _UNFINISHED)
        with require("datasets.arrow_writer").ArrowWriter(path=str(unfinished)) as writer:
            writer.write_batch(dict(columns))
            count, _ = writer.finalize()
        os.replace(unfinished, final)
        self.rows += count

    def tensor(self, column: str, row: int) -> Tensor:
        """One value of a row that is there, read alone."""
        for part in read_shards(self.folder):
            if row < len(part):
                return part.with_format("torch", columns=[column])[row][column]
            row -= len(part)
        raise IndexError(f"{self.folder} has no row {row}")

    def finish(self) -> None:
        """Notes that all rows are there."""
        self._write(_DESCRIPTION, {**read_description(self.folder), "complete": True})

    def _write(self, name: str, content: dict[str, Any]) -> None:
        unfinished = self.folder / (name + _UNFINISHED)
        unfinished.write_text(json.dumps(content, indent=2) + "\n")
        os.replace(unfinished, self.folder / name)


def shard_files(folder: str | Path) -> list[Path]:
    return sorted(Path(folder).glob("shard-*.arrow"))


def read_shards(folder: str | Path) -> list[Dataset]:
    """The shards, each mapped from disk and not read into memory."""
    datasets = require("datasets")
    return [datasets.Dataset.from_file(str(file)) for file in shard_files(folder)]


def is_written(folder: str | Path) -> bool:
    """Whether this is a folder of shards."""
    return (Path(folder) / _DESCRIPTION).is_file()


def read_description(folder: str | Path) -> dict[str, Any]:
    """What [`Shards`] was given, and `complete` when all rows are there.

    Raises:
        FileNotFoundError: If nothing of the kind is there.
    """
    if not is_written(folder):
        raise FileNotFoundError(f"{folder} is no folder that a gallery was written to: it has no {_DESCRIPTION}.")
    return json.loads((Path(folder) / _DESCRIPTION).read_text())
