"""The built-in source `scenes`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..builtin_source import BuiltinSource
from .addresses import image_at, label_map_of
from .label_classes import classes_of_objects
from .options import GALLERY_TASKS, SPLITS, TASKS, SceneOptions
from .scene_rows import SceneRows
from .tables import scene_stream, scene_table

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

_ROWS_FOR_WORDS = 1_000  # of each task; they have all words
_TEXTS = {
    "pretraining": ("captions",),
    "vqa": ("question", "answer"),
    "entailment": ("hypothesis",),
    "reasoning": ("sentence",),
}


class ScenesSource(BuiltinSource):
    """Generated scenes of coloured shapes, with captions, questions, hypotheses and statements of known truth."""

    splits = SPLITS
    tasks = TASKS
    options_type = SceneOptions

    def tasks_of(self, split: str) -> tuple[str, ...]:
        """Returns the tasks that a split has rows for."""
        if self.options.objects < 2:
            return () if split == "confusers" else (*GALLERY_TASKS, "vqa")
        return GALLERY_TASKS if split == "confusers" else TASKS

    def rows(self, split: str, task: str, streaming: bool = False) -> Dataset | IterableDataset:
        """Returns the rows of a split for a task; their images are drawn when they are read."""
        return scene_stream(self.options, split, task) if streaming else scene_table(self.options, split, task)

    def texts(self, split: str) -> Iterator[str]:
        """Yields captions, questions, answers, hypotheses and statements, enough of them to have all words."""
        # Words are those of every task, whatever the options narrow for one of them and no other may have.
        fewest = min(SceneOptions.fewest, self.options.objects)
        options = replace(self.options, captions="all", questions="all", fewest=fewest)
        for task in self.tasks_of(split):
            columns = _TEXTS.get(task, ())
            rows = SceneRows(options, split, task)
            for number in range(min(_ROWS_FOR_WORDS, len(rows)) if columns else 0):
                texts = rows.texts(number)
                for column in columns:
                    yield from [texts[column]] if isinstance(texts[column], str) else texts[column]

    @staticmethod
    def label_map_of(address: str) -> str | None:
        """Returns the address of an image's map of kinds."""
        return label_map_of(address)

    @staticmethod
    def classes_of_objects(objects: Sequence[Mapping[str, Any]]) -> list[int] | None:
        """Returns the classes of the ground and of the kind of each object."""
        return classes_of_objects(objects)

    @staticmethod
    def image_at(address: str) -> Image.Image:
        """Draws the image that a row names by its address."""
        return image_at(address)
