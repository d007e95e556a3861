"""Images of rows that only name theirs: a second source has them, joined by an id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.images import resolve_image_column
from ..data.source_images import encoded_images
from ..data.source_rows import load_rows, usual_split
from ..data.texts import is_missing, whole
from ..model.messages_cbvila import listed, shown
from .task import Task

if TYPE_CHECKING:
    from datasets import Dataset

Place = tuple[int, int]  # of an image: its source, and its row there

_ENDINGS = (".jpg", ".jpeg", ".png")  # of file names that others name without, as SNLI-VE does


def image_index(image_sources: list[Dataset], task: Task) -> dict[str, Place]:
    """Adds the sources of `task.image_data` to `image_sources`, and returns where the image of each id is.

    Raises:
        ValueError: If a source lacks a column, or an id is that of two images.
    """
    index: dict[str, Place] = {}
    stems: dict[str, Place] = {}
    for source in task.image_data:
        table: Any = load_rows(source, task.image_data_split or usual_split([source], ("train",)))
        column = resolve_image_column(task.image_column[0], table.column_names)
        if column is None:
            raise ValueError(
                f"image_data {source} has no column {task.image_column[0]!r}; it has {listed(table.column_names)}."
            )
        image_sources.append(encoded_images(table, column, source))
        for number, value in enumerate(_image_ids(table, image_sources[-1], task, source)):
            if is_missing(value):
                continue  # nothing can be joined with it
            place, name = (len(image_sources) - 1, number), image_id_of(value)
            if not _is_same_image(image_sources, index.setdefault(name, place), place):
                other, row = index[name]
                raise ValueError(
                    f"image_data has two pictures with the id {shown(name)}: row {row} of "
                    f"{task.image_data[other]} and row {number} of {source}. Leave one of them out, "
                    "or give ids that differ."
                )
            if name.lower().endswith(_ENDINGS):
                stems.setdefault(name.rpartition(".")[0], place)
    return stems | index


def joined_image(index: Mapping[str, Place], image_id: str) -> Place:
    """Returns where the image of an id is. ValueError if there is none."""
    place = index.get(image_id)
    if place is None:
        raise ValueError(f"no image of image_data has the id {shown(image_id)}")
    return place


def image_id_of(value: Any) -> str:
    """Returns what names an image. ValueError if nothing does."""
    if is_missing(value):
        raise ValueError(f"it has no image id ({shown(value)})")
    return str(whole(value))


def _image_ids(table: Any, images: Dataset, task: Task, source: str) -> Sequence[Any]:
    """The column with the ids of images or, where none was named for them and there is none, their files' names."""
    column = task.image_data_id_column or task.image_id_column
    if column in table.column_names:
        return table[column]
    files = [Path((image or {}).get("path") or "").name for image in images["image"]]
    if task.image_data_id_column is not None or not all(files):
        raise ValueError(f"image_data {source} has no column {column!r}; it has {listed(table.column_names)}.")
    return files


def _is_same_image(image_sources: Sequence[Dataset], first: Place, second: Place) -> bool:
    """Whether two rows have the same file as image; several may, such as one for each caption."""
    if first == second:
        return True
    one, other = (image_sources[source][row]["image"] or {} for source, row in (first, second))
    if one.get("bytes") is None and other.get("bytes") is None:
        return one.get("path") == other.get("path")
    return one.get("bytes") == other.get("bytes")
