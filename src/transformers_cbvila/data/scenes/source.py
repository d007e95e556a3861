"""The built-in source `scenes`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fsspec import register_implementation
from PIL import Image

from ...extras import require
from ..builtin_source import BuiltinSource
from .addresses import Addresses, image_at
from .options import GALLERY_TASKS, SPLITS, TASKS, SceneOptions
from .scene_rows import SceneRows

if TYPE_CHECKING:
    from datasets import Dataset, Features, IterableDataset

_SHARDS = 64  # of a stream: what processes and workers can share out
_ROWS_FOR_WORDS = 1_000  # of each task; they have all words


class ScenesSource(BuiltinSource):
    """Drawn scenes of coloured shapes, with captions, questions, hypotheses and statements whose truth is known."""

    splits = SPLITS
    tasks = TASKS
    options_type = SceneOptions

    def tasks_of(self, split: str) -> tuple[str, ...]:
        """Returns what a split has rows for: the confusers are a gallery for retrieval."""
        return GALLERY_TASKS if split == "confusers" else self.tasks

    def rows(self, split: str, task: str, streaming: bool = False) -> Dataset | IterableDataset:
        """Returns the rows of a split for a task; their images are drawn when they are read."""
        return scene_stream(self.options, split, task) if streaming else scene_table(self.options, split, task)

    def texts(self, split: str) -> Iterator[str]:
        """Yields questions, answers, hypotheses and statements, enough of them to have all words."""
        for task, columns in (
            ("vqa", ("question", "answer")),
            ("entailment", ("hypothesis",)),
            ("reasoning", ("sentence",)),
        ):
            if split == "confusers" or (self.options.objects < 2 and task != "vqa"):
                continue
            rows = SceneRows(self.options, split, task)
            for number in range(min(_ROWS_FOR_WORDS, len(rows))):
                texts = rows.texts(number)
                for column in columns:
                    yield from [texts[column]] if isinstance(texts[column], str) else texts[column]

    @staticmethod
    def image_at(address: str) -> Image.Image:
        """Draws the image that a row names by its address."""
        return image_at(address)


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
