"""Tables and streams of scenes for `datasets`, whose images are addresses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fsspec import register_implementation

from ...extras import require
from .addresses import Addresses
from .options import SceneOptions
from .scene_rows import SceneRows

if TYPE_CHECKING:
    from datasets import Dataset, Features, IterableDataset

_SHARDS = 64  # of a stream: what processes and workers can share out


@lru_cache(maxsize=4)
def scene_table(options: SceneOptions, split: str, task: str) -> Dataset:
    """Returns the rows of a split for a task as a `Dataset`, which has texts in memory and draws no image."""
    datasets = require("datasets")
    _register_addresses()
    rows = SceneRows(options, split, task)
    features = features_of(rows)
    records = list(_records(rows, [range(len(rows))]))
    columns = {name: [record[name] for record in records] for name in features}
    return datasets.Dataset.from_dict(columns, features=features)


def scene_stream(options: SceneOptions, split: str, task: str) -> IterableDataset:
    """Returns the rows of [`scene_table`] as a stream, which makes each row when it comes to it."""
    datasets = require("datasets")
    _register_addresses()
    rows = SceneRows(options, split, task)
    shards = min(_SHARDS, len(rows))
    bounds = [len(rows) * shard // shards for shard in range(shards + 1)]
    numbers = [range(bounds[shard], bounds[shard + 1]) for shard in range(shards)]
    return datasets.IterableDataset.from_generator(
        _records, features=features_of(rows), gen_kwargs={"rows": rows, "numbers": numbers}
    )


def features_of(rows: SceneRows) -> Features:
    """Returns the columns of a table and their types, in their order."""
    datasets = require("datasets")
    row = rows.texts(0)
    images = {column: datasets.Image() for column in rows.scenes(0)}
    types = {name: _feature(value) for name, value in row.items() if name != "objects"}
    number, text = datasets.Value("int32"), datasets.Value("string")
    objects = datasets.List({"shape": text, "colour": text, "size": text, "box": datasets.List(number, length=4)})
    return datasets.Features(**images, **types, objects=objects if len(images) == 1 else datasets.List(objects))


def _feature(value: Any) -> Any:
    datasets = require("datasets")
    if isinstance(value, list):
        return datasets.List(datasets.Value("string"))
    return datasets.Value({bool: "bool", int: "int64", str: "string"}[type(value)])


def _records(rows: SceneRows, numbers: Sequence[Sequence[int]]) -> Iterator[dict[str, Any]]:
    addresses, columns = Addresses(rows), list(rows.scenes(0))
    for shard in numbers:
        for number in shard:
            images = {name: {"path": addresses.of(number, name), "bytes": None} for name in columns}
            yield {**images, **rows.texts(number)}


def _register_addresses() -> None:
    """Lets `datasets` open addresses, as it opens files of other schemes."""
    register_implementation("scenes", f"{__package__}.file_system.SceneFileSystem", clobber=True)
