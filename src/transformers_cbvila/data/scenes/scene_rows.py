"""Rows of scenes as a sequence that draws a row when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from .drawing import blank, draw, label_map
from .draws import Draws
from .options import SceneOptions
from .rows import Row, make_row
from .scene import Scene


class SceneRows(Sequence):
    """The rows of a split for a task. A row depends on (options, split, task, row) alone, in every process.

    Rows are dictionaries with the images (`image`, or `left_image` and `right_image`) as PIL images, the texts of the
    task, and what is true of the image: `objects` (shape, colour, size and box of each), `label_map` (see
    [`label_map`]) and `graph` (see [`Scene.graph`]); of two images each of these is a list of two.

    Args:
        options: Options of the source.
        split: One of `SPLITS`.
        task: One of `TASKS`.

    Raises:
        ValueError: If there is no such split, or it has no rows for the task.
    """

    def __init__(self, options: SceneOptions, split: str, task: str = "pretraining") -> None:
        options.check_task(split, task)
        self.options, self.split, self.task = options, split, task
        self._length = options.rows_of(split)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = self._number(index)
        row = make_row(self.options, self.split, self.task, number)
        images = {column: self._draw(scene, number, column) for column, scene in row.scenes.items()}
        return {**images, **row.texts, **self._truth(row)}

    def texts(self, index: int) -> dict[str, Any]:
        """Returns a row without image and label map, for which nothing is drawn."""
        row = make_row(self.options, self.split, self.task, self._number(index))
        objects = [[item.record() for item in scene.objects] for scene in row.scenes.values()]
        return {**row.texts, "objects": objects[0] if len(objects) == 1 else objects}

    def image(self, index: int, column: str = "image") -> Image.Image:
        """Returns one image of a row."""
        number = self._number(index)
        return self._draw(make_row(self.options, self.split, self.task, number).scenes[column], number, column)

    def scenes(self, index: int) -> dict[str, Scene]:
        """Returns the scene of each image of a row."""
        return make_row(self.options, self.split, self.task, self._number(index)).scenes

    def _number(self, index: int) -> int:
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(f"There is no row {index}; {self.split} of scenes has {len(self):,}.")
        return number

    def _draw(self, scene: Scene, number: int, column: str) -> Image.Image:
        if self.options.blank:
            return blank(self.options.size)
        key = (self.options.seed, self.split, self.task, number, column, "drawing")
        return draw(scene, self.options.size, self.options.style, Draws(*key))

    def _truth(self, row: Row) -> dict[str, Any]:
        size = self.options.size
        truths = [
            {
                "objects": [item.record() for item in scene.objects],
                "label_map": label_map(scene, size),
                "graph": scene.graph(),
            }
            for scene in row.scenes.values()
        ]
        if len(truths) == 1:
            return truths[0]
        return {name: [truth[name] for truth in truths] for name in truths[0]}
