"""Folders of pictures as rows: described by metadata files, by a .txt beside each, or by the folders they lie in."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.utils import logging

from ..extras import require
from ..model.messages_cbvila import listed
from .images import image_columns, is_image_file, locate
from .source_files import is_metadata, passed_over, shown_name

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.get_logger(__name__)

_NAMED = 5  # files that a message names


def image_folder_rows(source: str, files: Sequence[str], read_table: Callable[[str], Dataset]) -> Dataset:
    """The rows of a folder of pictures; their column `image` is not decoded.

    - With metadata files, a row for each of their lines: their columns, and for `file_name` (or `left_file_name`) the
      picture that it names, as `image` (or `left`). Names count from the metadata file's folder.
    - Otherwise with texts: `cat.jpg` beside `cat.txt`, in subfolders, too. Each line that is not blank is a caption.
    - Otherwise, where pictures lie in folders of one level that differ, with `label`, the name of the folder.

    What is left out, pictures that nothing describes and texts without a picture, is counted in a warning.

    Args:
        source: The source, for messages.
        files: Its pictures, and the metadata and text files beside them.
        read_table: Reads a metadata file.

    Raises:
        ValueError: If metadata files name no pictures or do not go together.
    """
    pictures = [file for file in files if is_image_file(file)]
    metadata = [file for file in files if is_metadata(file)]
    if metadata:
        return _described(source, pictures, metadata, read_table)
    aside = [file for file in passed_over(source, files) if is_metadata(file)]
    if aside:
        logger.warning(
            f"{_listed(source, aside)} passed over: a metadata file describes the pictures of its own split, so put "
            "one into the folder of each split (or into the .zip with its pictures)."
        )
    texts = {os.path.splitext(file)[0]: file for file in files if file.lower().endswith(".txt")}
    if any(os.path.splitext(picture)[0] in texts for picture in pictures):
        return _with_texts(source, pictures, texts)
    return _by_folder(pictures)


def _described(source: str, pictures: Sequence[str], metadata: Sequence[str], read_table) -> Dataset:
    tables = [_located(file, read_table(file)) for file in metadata]
    if any(table.features != tables[0].features for table in tables):
        raise ValueError(
            f"{shown_name(source)}: its metadata files have other columns than each other "
            f"({'; '.join(listed(table.column_names, 200) for table in tables[:_NAMED])}); name the folders one by "
            "one."
        )
    named = {os.path.abspath(row["path"]) for table in tables for row in _pictures_of(table) if row and row["path"]}
    unnamed = [picture for picture in pictures if os.path.abspath(picture) not in named]
    if unnamed:
        logger.warning(
            f"{_listed(source, unnamed)} left out, of {len(pictures)} pictures: no line of the metadata names them."
        )
    return require("datasets").concatenate_datasets(tables)


def _located(file: str, table: Dataset) -> Dataset:
    """The rows of a metadata file, with a column of pictures for each that names their files."""
    columns = image_columns(table.column_names)
    if not columns:
        raise ValueError(
            f"{shown_name(file)} has no column file_name, which names each row's picture; it has "
            f"{listed(table.column_names)}."
        )
    folder = os.path.dirname(os.path.abspath(file))
    for names, column in columns.items():
        images = [locate(str(name), folder) if name else None for name in table[names]]
        if column in table.column_names:
            table = table.remove_columns(column)
        table = table.add_column(column, [path and {"path": path, "bytes": None} for path in images], feature=_image())
    kept = [name for name in table.column_names if name not in columns and name not in columns.values()]
    order = [*columns.values(), *kept, *columns]
    # into one table: joined columns that are chosen from cannot be joined with others later
    return table.select_columns(order).cast(
        require("datasets").Features({name: table.features[name] for name in order})
    )


def _pictures_of(table: Dataset) -> Any:
    for column in image_columns(table.column_names).values():
        yield from table[column]


def _with_texts(source: str, pictures: Sequence[str], texts: dict[str, str]) -> Dataset:
    datasets = require("datasets")
    described = [picture for picture in pictures if os.path.splitext(picture)[0] in texts]
    alone = sorted(set(pictures) - set(described))
    if alone:
        logger.warning(
            f"{_listed(source, alone)} left out, of {len(pictures)} pictures: there is no .txt of the same name."
        )
    stems = {os.path.splitext(picture)[0] for picture in described}
    unused = [text for stem, text in texts.items() if stem not in stems]
    if unused:
        logger.warning(f"{_listed(source, unused)} left out, of {len(texts)} texts: there is no picture of that name.")
    captions = [caption_lines(_read(texts[os.path.splitext(picture)[0]])) for picture in described]
    rows = {"image": [{"path": picture, "bytes": None} for picture in described], "captions": captions}
    features = datasets.Features(image=_image(), captions=datasets.List(datasets.Value("string")))
    return datasets.Dataset.from_dict(rows, features=features)


def caption_lines(text: str) -> list[str]:
    """The captions of a text file, one a line."""
    return [line for line in text.splitlines() if line.strip()]


def _read(file: str) -> str:
    try:
        with open(file, encoding="utf-8-sig") as text:
            return text.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{shown_name(file)} cannot be read as UTF-8 text: {error}") from error


def _by_folder(pictures: Sequence[str]) -> Dataset:
    datasets = require("datasets")
    rows: dict[str, Any] = {"image": [{"path": picture, "bytes": None} for picture in pictures]}
    features = datasets.Features(image=_image())
    folders = [os.path.basename(os.path.dirname(picture)) for picture in pictures]
    if len(set(folders)) > 1 and len({len(Path(picture).parts) for picture in pictures}) == 1:
        rows["label"] = folders
        features["label"] = datasets.ClassLabel(names=sorted(set(folders)))
    return datasets.Dataset.from_dict(rows, features=features)


def _image() -> Any:
    return require("datasets").Image(decode=False)


def _listed(source: str, files: Sequence[str]) -> str:
    """ "3 files of SOURCE (a.png, b.png, …) are": how a message on files of a source begins."""
    root = os.path.abspath(source)
    names = [os.path.relpath(file, root) for file in files[:_NAMED]]
    more = ", …" if len(files) > _NAMED else ""
    files_are = "1 file of" if len(files) == 1 else f"{len(files):,} files of"
    return f"{files_are} {shown_name(source)} ({', '.join(names)}{more}) {'is' if len(files) == 1 else 'are'}"
