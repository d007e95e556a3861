"""Reads the rows of a task from sources."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..data.bad_rows import WAY_OUT, key_columns, row_origin
from ..data.columns import missing_column
from ..data.images import resolve_image_column
from ..data.source_images import encoded_images
from ..data.source_rows import load_rows
from ..model.messages_cbvila import listed
from .columns import find_columns
from .joined_images import Place, image_id_of, image_index, joined_image
from .rows import Record, TaskRows
from .task import Task


def load_task_rows(task: Task, sources: Sequence[str], split: str, classes: Sequence[str] = ()) -> TaskRows:
    """Reads the rows of a task from several sources, one after the other.

    Args:
        task: The task, whose options say where things are.
        sources: See [`load_pairs`].
        split: Split of each.
        classes: Names of the classes that labels may have.

    Raises:
        FileNotFoundError: If a source is a path and isn't there.
        ValueError: If a source lacks a column, or, without `skip_bad_rows`, for a row without text, label or image
            (broken images are found when they are read); the message names the row.
    """
    sources = [os.fspath(source) for source in sources]
    rows = TaskRows([], [], task.image_layout)
    joined = image_index(rows.image_sources, task)
    for source in sources:
        rows.records += _read(task, rows, source, split, classes, joined)
    if task.image_id_column is not None and task.merged_fields:
        rows.records = list(_merged(rows.records, task.merged_fields))
    if task.skip_bad_rows:
        rows = rows.without_broken_images()
    if not rows.records:
        reasons = f" {rows.summary_of_skipped()}" if rows.skipped else ""
        raise ValueError(f"{', '.join(sources)} (split {split}) has no row that can be used.{reasons}")
    return rows


def _read(
    task: Task, rows: TaskRows, source: str, split: str, classes: Sequence[str], joined: Mapping[str, Place]
) -> Iterator[Record]:
    """The good rows of one source; reasons of the others are added to `rows.skipped`."""
    table: Any = load_rows(source, split, task=task.source_task or task.name)
    names = table.column_names
    columns = find_columns(task, names, source)
    conditions = [condition.partition("=")[::2] for condition in task.where]
    others = [*task.value_columns(), *(column for column, _ in conditions)]
    for column in others:
        if column not in names:
            raise ValueError(
                f"{source} has no column {column!r} for a group, image id or condition; it has {listed(names)}."
            )
    first = _add_images(task, rows, table, source, bool(joined))
    read_fields = task.field_reader(columns, table.features, classes)
    wanted = dict.fromkeys([*columns.values(), *others, *key_columns(names)])
    for number, row in enumerate(table.select_columns(list(wanted))):
        if any(str(row[column]) != value for column, value in conditions):
            continue
        origin = row_origin(source, number, row)
        try:
            fields = read_fields(row)
            if task.image_id_column is not None:
                fields["image_id"] = image_id_of(row[task.image_id_column])
            places = [(first + i, number) for i in range(len(task.image_column))]
            yield Record(origin, places if first >= 0 else [joined_image(joined, fields["image_id"])], fields)
        except ValueError as error:
            if not task.skip_bad_rows:
                raise ValueError(f"{origin}: {error}. {WAY_OUT}.") from error
            rows.skipped.append(f"{origin}: {error}")


def _add_images(task: Task, rows: TaskRows, table: Any, source: str, can_join: bool) -> int:
    """Adds the image columns of a source to `rows`; returns the number of the first, -1 if all are joined."""
    found = {column: resolve_image_column(column, table.column_names) for column in task.image_column}
    missing = [column for column, name in found.items() if name is None]
    if missing and can_join:
        return -1
    if missing:
        error = missing_column(source, f"column {missing[0]!r}", "image_column", table.column_names)
        raise ValueError(f"{error} Of images that are elsewhere, set image_data to where.")
    rows.image_sources += [encoded_images(table, str(name), source) for name in found.values()]
    return len(rows.image_sources) - len(task.image_column)


def _merged(records: Sequence[Record], lists: Sequence[str]) -> Iterator[Record]:
    """Rows of the same image as one, their lists concatenated; the image is the first row's.

    Ids name the images of one source: two data sets that count from 0 have different images. Rows that are joined with
    `image_data` have these as their source of images, wherever their texts are from.
    """
    first: dict[tuple[int, str], Record] = {}
    for record in records:
        known = first.setdefault((record.images[0][0], record.fields["image_id"]), record)
        if known is not record:
            for name in lists:
                if name in known.fields or name in record.fields:  # an optional column, which not every source has
                    known.fields[name] = [*known.fields.get(name, ()), *record.fields.get(name, ())]
    yield from first.values()
