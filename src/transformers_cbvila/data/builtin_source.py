"""The contract of built-in sources: data that a name stands for instead of files or a Hub id."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from PIL import Image

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset


@dataclass(frozen=True)
class NoOptions:
    """The options of a source that has none."""


class BuiltinSource(ABC):
    """Data with a name of its own. A source is a subclass and one line in `BUILTIN_SOURCES`.

    Args:
        options: An instance of `options_type`.

    Attributes:
        splits: Names of its splits.
        tasks: What it has rows for, such as "pretraining" or "vqa".
        options_type: Dataclass of its options, whose `__post_init__` raises a ValueError for values out of range. Its
            fields may be of the types `int`, `float`, `bool`, `str`, `Literal[...]`, `tuple[T, ...]` and `T | None`,
            and all have defaults.
    """

    splits: ClassVar[tuple[str, ...]]
    tasks: ClassVar[tuple[str, ...]]
    options_type: ClassVar[type] = NoOptions

    def __init__(self, options: Any = None) -> None:
        self.options = self.options_type() if options is None else options

    def tasks_of(self, split: str) -> tuple[str, ...]:
        """Returns what a split has rows for: all of `tasks`, unless the source says otherwise."""
        return self.tasks

    @abstractmethod
    def rows(self, split: str, task: str, streaming: bool = False) -> Dataset | IterableDataset:
        """Returns the rows of a split for a task, in columns with the usual names of that task.

        Args:
            split: One of `splits`.
            task: One of `tasks`.
            streaming: Whether a stream is wanted. A source may return a `Dataset` nevertheless; without `streaming`
                it has to.
        """

    def texts(self, split: str) -> Iterator[str]:
        """Yields texts for a vocabulary that its rows for pretraining do not have, such as questions and answers."""
        yield from ()

    @staticmethod
    def label_map_of(address: str) -> str | None:
        """Returns the address of the label map of an image that the source draws, or None if it has no classes.

        [`~BuiltinSource.image_at`] returns the map, whose pixels are numbers of classes; 255 stands for none.
        """
        return None

    @staticmethod
    def classes_of_objects(objects: Sequence[Mapping[str, Any]]) -> list[int] | None:
        """Returns the class of each value of a label map in a table that the source exported; value 0 is first.

        Args:
            objects: Records of the objects, in whose order the map has the values 1, 2, …

        Returns:
            The classes; None if these are not records of the source.
        """
        return None

    @staticmethod
    def image_at(address: str) -> Image.Image:
        """Returns an image that the source draws, by the address that its rows have as path: `NAME://…`.

        Raises:
            ValueError: If the address names none.
        """
        raise ValueError(f"{address} names no image.")
