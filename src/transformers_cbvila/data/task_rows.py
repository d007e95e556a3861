"""Rows of a downstream task: texts and labels in memory, images read when a row is asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from ..extras import require
from ..model.messages_cbvila import listed, shown
from .bad_rows import WAY_OUT, BadRowError, key_columns, row_origin, summary_of_bad_rows
from .columns import missing_column
from .easy_vqa import load_easy_vqa
from .pairs import file_identity, stable_id
from .pictures import picture_column, read_picture
from .source_rows import encoded_images, load_rows, usual_split
from .task_fields import Fields, field_reader, find_columns, image_id_of
from .task_settings import QuestionSettings, ReasoningSettings, RetrievalSettings, TaskSettings
from .texts import is_missing

if TYPE_CHECKING:
    from datasets import Dataset

EASY_VQA = "easy-vqa"
_ENDINGS = (".jpg", ".jpeg", ".png")  # of file names that others name without, as SNLI-VE does
_LISTS = ("captions", "question", "answer")  # fields that rows of one image put together


class Record(NamedTuple):
    """A row: what an error calls it, its pictures as (source of pictures, row in it), and its other fields."""

    origin: str
    pictures: list[tuple[int, int]]
    fields: Fields


@dataclass
class TaskRows(Sequence):
    """Rows that can be indexed, as dictionaries with `image` (RGB) or, with several, `images`, and the task's fields.

    Args:
        pictures: Sources of pictures: data sets with one column `image`, not decoded.
        records: The rows.
        parts, gap: Images of equal width that each picture is cut into, and what lies between them; see [`cut`].
        several: Whether rows have `images`, a list, in place of `image`.
        skipped: Why rows were left out, by row.
    """

    pictures: list[Dataset]
    records: list[Record]
    parts: int = 1
    gap: float = 0.0
    several: bool = False
    skipped: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        record = self.records[index]
        try:
            images = self.images(record)
        except ValueError as error:
            raise BadRowError(f"{record.origin}: {error}. {WAY_OUT}.") from error
        return {**record.fields, **({"images": images} if self.several else {"image": images[0]})}

    def column(self, name: str) -> list[Any]:
        """One field of all rows, without reading an image."""
        return [record.fields[name] for record in self.records]

    def fingerprint(self) -> int:
        """A hash of the images, which changes when a file changes; no image is decoded."""
        return stable_id(*(self._identity(*place) for record in self.records for place in record.pictures))

    def _identity(self, source: int, row: int) -> bytes:
        value = self.pictures[source][row]["image"] or {}
        known = value.get("bytes") or file_identity(value.get("path") or "").encode()
        return stable_id(known).to_bytes(8, "big")

    def images(self, record: Record) -> list[Image.Image]:
        """The images of a row. ValueError where one is missing or cannot be read."""
        images = [read_picture(self.pictures[source][row]["image"]) for source, row in record.pictures]
        return images if self.parts == 1 else [part for image in images for part in cut(image, self.parts, self.gap)]

    def without_broken_images(self) -> TaskRows:
        """Those rows whose images can be read; reads them all."""
        kept, skipped = [], list(self.skipped)
        for record in require("datasets.utils").tqdm(self.records, desc="Checking images"):
            try:
                self.images(record)
                kept.append(record)
            except ValueError as error:
                skipped.append(f"{record.origin}: {error}")
        return replace(self, records=kept, skipped=skipped)

    def summary_of_skipped(self) -> str:
        """How many rows were left out, and why the first of them."""
        return summary_of_bad_rows(self.skipped)


def cut(image: Image.Image, parts: int, gap: float = 0.0) -> list[Image.Image]:
    """A picture as images of equal width, from left to right; `gap` between them is a share of the picture's width.

    Raises:
        ValueError: If it is too narrow for that.
    """
    step = image.width * (1 + gap) / parts
    width = step - image.width * gap
    boxes = [(round(i * step), 0, round(i * step + width), image.height) for i in range(parts)]
    if any(left >= right for left, _, right, _ in boxes):
        raise ValueError(f"its picture is {image.width} pixels wide and cannot be cut into {parts} parts")
    return [image.crop(box) for box in boxes]


def load_task_rows(
    sources: Sequence[str], split: str, settings: TaskSettings, classes: Sequence[str] = ()
) -> TaskRows:
    """Reads the rows of a task from several sources, one after the other.

    Args:
        sources: See [`load_pairs`]; `"easy-vqa"` for questions.
        split: Split of each.
        settings: Where things are, see `task_settings.py`; its class is the task.
        classes: Names of the classes that labels may have.

    Raises:
        FileNotFoundError: If a source is a path and isn't there.
        ValueError: If a source lacks a column, or, without `skip_bad_rows`, for a row without text, label or image
            (broken images are found when they are read); the message names the row.
    """
    several = isinstance(settings, ReasoningSettings)
    sources = [os.fspath(source) for source in sources]
    rows = TaskRows([], [], getattr(settings, "image_parts", 1), getattr(settings, "image_gap", 0.0), several)
    joined = _join_index(rows, settings)
    for source in sources:
        if source == EASY_VQA:
            rows.records += _easy_vqa(rows, split, settings)
        else:
            rows.records += _read(rows, source, split, settings, classes, joined)
    if settings.image_id_column is not None and isinstance(settings, RetrievalSettings | QuestionSettings):
        rows.records = list(_together(rows.records))
    if settings.skip_bad_rows:
        rows = rows.without_broken_images()
    if not rows.records:
        reasons = f" {rows.summary_of_skipped()}" if rows.skipped else ""
        raise ValueError(f"{', '.join(sources)} (split {split}) has no row that can be used.{reasons}")
    return rows


def _read(
    rows: TaskRows, source: str, split: str, settings: TaskSettings, classes, joined: dict[str, tuple[int, int]]
) -> Iterator[Record]:
    """The good rows of one source; reasons of the others are added to `rows.skipped`."""
    table: Any = load_rows(source, split)
    names = table.column_names
    columns = find_columns(settings, names, source)
    extra = [c for c in (settings.image_id_column, getattr(settings, "group_column", None)) if c is not None]
    conditions = [condition.partition("=")[::2] for condition in settings.where]
    for option, column in [("a group, image id or condition", c) for c in [*extra, *(c for c, _ in conditions)]]:
        if column not in names:
            raise ValueError(f"{source} has no column {column!r} for {option}; it has {listed(names)}.")
    first = _add_pictures(rows, table, source, settings, bool(joined))
    read = field_reader(settings, columns, table.features, classes)
    wanted = dict.fromkeys([*columns.values(), *extra, *(c for c, _ in conditions), *key_columns(names)])
    for number, row in enumerate(table.select_columns(list(wanted))):
        if any(str(row[column]) != value for column, value in conditions):
            continue
        origin = row_origin(source, number, row)
        try:
            fields = read(row)
            if settings.image_id_column is not None:
                fields["image_id"] = image_id_of(row[settings.image_id_column])
            places = [(first + i, number) for i in range(len(settings.image_column))]
            yield Record(origin, places if first >= 0 else [_joined(joined, fields)], fields)
        except ValueError as error:
            if not settings.skip_bad_rows:
                raise ValueError(f"{origin}: {error}. {WAY_OUT}.") from error
            rows.skipped.append(f"{origin}: {error}")


def _add_pictures(rows: TaskRows, table, source: str, settings: TaskSettings, can_join: bool) -> int:
    """Adds the image columns of a source to `rows.pictures`; returns the number of the first, -1 if all are joined."""
    found = {column: picture_column(column, table.column_names) for column in settings.image_column}
    missing = [column for column, name in found.items() if name is None]
    if missing and can_join:
        return -1
    if missing:
        error = missing_column(source, f"column {missing[0]!r}", "image_column", table.column_names)
        raise ValueError(f"{error} Of images that are elsewhere, set image_data to where.")
    rows.pictures += [encoded_images(table, str(name), source) for name in found.values()]
    return len(rows.pictures) - len(settings.image_column)


def _join_index(rows: TaskRows, settings: TaskSettings) -> dict[str, tuple[int, int]]:
    """Where the picture of each id of `image_data` is.

    Raises:
        ValueError: If a source lacks a column, or an id is that of two pictures.
    """
    index: dict[str, tuple[int, int]] = {}
    stems: dict[str, tuple[int, int]] = {}
    for source in settings.image_data:
        table: Any = load_rows(source, settings.image_data_split or usual_split([source], ("train",)))
        column = picture_column(settings.image_column[0], table.column_names)
        if column is None:
            raise ValueError(
                f"image_data {source} has no column {settings.image_column[0]!r}; it has {listed(table.column_names)}."
            )
        rows.pictures.append(encoded_images(table, column, source))
        for number, value in enumerate(_picture_ids(table, rows.pictures[-1], settings, source)):
            if is_missing(value):
                continue  # nothing can be joined with it
            place, name = (len(rows.pictures) - 1, number), image_id_of(value)
            if not _same_picture(rows.pictures, index.setdefault(name, place), place):
                other, row = index[name]
                raise ValueError(
                    f"image_data has two pictures with the id {shown(name)}: row {row} of "
                    f"{settings.image_data[other]} and row {number} of {source}. Leave one of them out, "
                    "or give ids that differ."
                )
            if name.lower().endswith(_ENDINGS):
                stems.setdefault(name.rpartition(".")[0], place)
    return stems | index


def _picture_ids(table: Any, pictures: Dataset, settings: TaskSettings, source: str) -> Sequence[Any]:
    """The column with the ids of pictures or, where none was named for them and there is none, their files' names."""
    column = settings.image_data_id_column or settings.image_id_column
    if column in table.column_names:
        return table[column]
    files = [Path((picture or {}).get("path") or "").name for picture in pictures["image"]]
    if settings.image_data_id_column is not None or not all(files):
        raise ValueError(f"image_data {source} has no column {column!r}; it has {listed(table.column_names)}.")
    return files


def _same_picture(pictures: Sequence[Dataset], first: tuple[int, int], second: tuple[int, int]) -> bool:
    """Whether two rows have the same file as picture; several may, such as one for each caption."""
    if first == second:
        return True
    one, other = (pictures[source][row]["image"] or {} for source, row in (first, second))
    if one.get("bytes") is None and other.get("bytes") is None:
        return one.get("path") == other.get("path")
    return one.get("bytes") == other.get("bytes")


def _joined(joined: dict[str, tuple[int, int]], fields: Fields) -> tuple[int, int]:
    place = joined.get(fields["image_id"])
    if place is None:
        raise ValueError(f"no image of image_data has the id {shown(fields['image_id'])}")
    return place


def _together(records: Sequence[Record]) -> Iterator[Record]:
    """Rows of the same image as one, their lists put in a row; the image is the first row's.

    Ids name the images of one source: two data sets that count from 0 have different images. Rows that are joined with
    `image_data` have these as their source of pictures, wherever their texts are from.
    """
    first: dict[tuple[int, str], Record] = {}
    for record in records:
        name = record.fields.get("image_id", record.origin)  # easy-VQA's are together from the start
        known = first.setdefault((record.pictures[0][0], name), record)
        if known is record:
            continue
        for field_name in _LISTS:
            if field_name in record.fields:
                known.fields[field_name] = [*known.fields[field_name], *record.fields[field_name]]
    yield from first.values()


def _easy_vqa(rows: TaskRows, split: str, settings: TaskSettings) -> Iterator[Record]:
    if not isinstance(settings, QuestionSettings):
        raise ValueError("easy-vqa holds questions and answers; it is data for the task vqa.")
    table = load_easy_vqa(split)
    rows.pictures.append(encoded_images(table, "image", EASY_VQA))
    questions = zip(table["question"], table["answer"], strict=True)
    for number, (asked, given) in enumerate(questions):
        fields = {"question": list(asked), "answer": [[answer] for answer in given]}
        yield Record(f"Image {number} of {EASY_VQA}", [(len(rows.pictures) - 1, number)], fields)
