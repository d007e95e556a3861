"""Splits of rows: parts of one ("test[:100]"), several ("train+test"), read when they are asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..extras import require

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

_STREAMED = re.compile(r"(?P<name>[^\[\]+]+)(\[(?P<start>\d*):(?P<stop>\d*)\])?")


def splits_in(split: str) -> list[str]:
    """Returns the names of the splits in "train", "test[:100]" or "train+test"."""
    return list(dict.fromkeys(part.partition("[")[0] for part in split.split("+")))


def select_split(splits: Mapping[str, Dataset], split: str) -> Dataset:
    """Returns the rows that `split` names; rows that go by any name are those of the split ""."""
    datasets = require("datasets")
    wanted = splits_in(split)
    rows = {name: splits["" if "" in splits else name] for name in wanted if name in splits or "" in splits}
    names = [name for name in dict.fromkeys([*splits, *rows]) if name]
    lengths = {name: len(rows[name]) if name in rows else 0 for name in names}
    instructions = datasets.ReadInstruction.from_spec(split).to_absolute(lengths)
    parts = [rows[part.splitname].select(range(part.from_, part.to)) for part in instructions]
    return parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)


class StreamedPart(NamedTuple):
    """Rows of one split that a stream can yield without knowing how many there are.

    Args:
        name: Name of the split.
        start: Number of the first row.
        stop: Number of the row after the last; None for all.
    """

    name: str
    start: int
    stop: int | None

    @classmethod
    def of(cls, split: str) -> StreamedPart | None:
        """Returns what `split` names; None for several splits, percentages, and numbers from the end."""
        found = _STREAMED.fullmatch(split)
        if found is None:
            return None
        return cls(found["name"], int(found["start"] or 0), int(found["stop"]) if found["stop"] else None)

    def __call__(self, rows: IterableDataset) -> IterableDataset:
        """Returns these rows of a stream of the split."""
        rows = rows.skip(self.start) if self.start else rows
        return rows if self.stop is None else rows.take(max(self.stop - self.start, 0))


class LazySplits(Mapping[str, Any]):
    """Splits that are read when they are asked for.

    Args:
        splits: By name, the files that hold its rows.
        read: Reads the rows of files.
    """

    def __init__(self, splits: Mapping[str, Sequence[str]], read: Callable[[Sequence[str]], Any]) -> None:
        self._splits, self._read = splits, read

    def __getitem__(self, name: str) -> Any:
        return self._read(self._splits[name])

    def __contains__(self, name: object) -> bool:
        return name in self._splits

    def __iter__(self) -> Iterator[str]:
        return iter(self._splits)

    def __len__(self) -> int:
        return len(self._splits)
