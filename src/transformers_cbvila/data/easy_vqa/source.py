"""The built-in source `easy-vqa`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..builtin_source import BuiltinSource
from .loading import SPLITS, load_easy_vqa, load_easy_vqa_captions

if TYPE_CHECKING:
    from datasets import Dataset


class EasyVQASource(BuiltinSource):
    """Images of easy-VQA with all captions that follow from their questions, or with the questions themselves."""

    splits = SPLITS
    tasks = ("pretraining", "retrieval", "vqa")

    def rows(self, split: str, task: str, streaming: bool = False) -> Dataset:
        """Returns one row per image, with `question` and `answer` for vqa and with `captions` otherwise."""
        return load_easy_vqa(split) if task == "vqa" else load_easy_vqa_captions(split)

    def texts(self, split: str) -> Iterator[str]:
        """Yields the split's questions, then its answers."""
        rows = load_easy_vqa(split)
        for column in ("question", "answer"):
            for texts in rows[column]:
                yield from texts
