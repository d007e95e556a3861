"""Folders of images as rows, described by metadata files, by a .txt beside each, or by the names of their folders."""

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
    """Returns the rows of a folder of images; their column `image` is not decoded.

    - With metadata files, a row for each of their lines: its columns, and for `file_name` (or `left_file_name`) the
      image that it names, as `image` (or `left`). Names are relative to the metadata file's folder.
    - Otherwise with texts: `cat.jpg` beside `cat.txt`, also in subfolders. Each line that is not blank is a caption.
    - Otherwise, if images are in several folders of one level, with `label`, the name of the folder.

    A warning counts what is left out: images without a description and texts without an image.

    Args:
        source: The source, for messages.
        files: Its images, and the metadata and text files beside them.
        read_table: Reads a metadata file.

    Raises:
        ValueError: If metadata files name no images, or have different columns.
    """
    images = [file for file in files if is_image_file(file)]
    metadata = [file for file in files if is_metadata(file)]
    if metadata:
        return _described(source, images, metadata, read_table)
    aside = [file for file in passed_over(source, files) if is_metadata(file)]
    if aside:
        logger.warning(
            f"{_listed(source, aside)} passed over: a metadata file describes the images of its own split, so put "
            "one into the folder of each split (or into the .zip with its images)."
        )
    texts = {os.path.splitext(file)[0]: file for file in files if file.lower().endswith(".txt")}
    if any(os.path.splitext(image)[0] in texts for image in images):
        return _with_texts(source, images, texts)
    return _by_folder(images)


def _described(
    source: str, images: Sequence[str], metadata: Sequence[str], read_table: Callable[[str], Dataset]
) -> Dataset:
    tables = [_located(file, read_table(file)) for file in metadata]
    if any(table.features != tables[0].features for table in tables):
        raise ValueError(
            f"{shown_name(source)}: its metadata files have other columns than each other "
            f"({'; '.join(listed(table.column_names, 200) for table in tables[:_NAMED])}); name the folders one by "
            "one."
        )
    named = {os.path.abspath(row["path"]) for table in tables for row in _images_of(table) if row and row["path"]}
    unnamed = [image for image in images if os.path.abspath(image) not in named]
    if unnamed:
        logger.warning(
            f"{_listed(source, unnamed)} left out, of {len(images)} images: no line of the metadata names them."
        )
    return require("datasets").concatenate_datasets(tables)


def _located(file: str, table: Dataset) -> Dataset:
    """Returns the rows of a metadata file, with a column of images for each column that names their files."""
    columns = image_columns(table.column_names)
    if not columns:
        raise ValueError(
            f"{shown_name(file)} has no column file_name, which names each row's image; it has "
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
    # the cast makes one table: selected columns that were added cannot be concatenated later
    return table.select_columns(order).cast(
        require("datasets").Features({name: table.features[name] for name in order})
    )


def _images_of(table: Dataset) -> Any:
    for column in image_columns(table.column_names).values():
        yield from table[column]


def _with_texts(source: str, images: Sequence[str], texts: dict[str, str]) -> Dataset:
    datasets = require("datasets")
    described = [image for image in images if os.path.splitext(image)[0] in texts]
    alone = sorted(set(images) - set(described))
    if alone:
        logger.warning(
            f"{_listed(source, alone)} left out, of {len(images)} images: there is no .txt of the same name."
        )
    stems = {os.path.splitext(image)[0] for image in described}
    unused = [text for stem, text in texts.items() if stem not in stems]
    if unused:
        logger.warning(f"{_listed(source, unused)} left out, of {len(texts)} texts: there is no image of that name.")
    captions = [caption_lines(_read(texts[os.path.splitext(image)[0]])) for image in described]
    rows = {"image": [{"path": image, "bytes": None} for image in described], "captions": captions}
    features = datasets.Features(image=_image(), captions=datasets.List(datasets.Value("string")))
    return datasets.Dataset.from_dict(rows, features=features)


def caption_lines(text: str) -> list[str]:
    """Returns the captions of a text file, one per line."""
    return [line for line in text.splitlines() if line.strip()]


def _read(file: str) -> str:
    try:
        with open(file, encoding="utf-8-sig") as text:
            return text.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{shown_name(file)} cannot be read as UTF-8 text: {error}") from error


def _by_folder(images: Sequence[str]) -> Dataset:
    datasets = require("datasets")
    rows: dict[str, Any] = {"image": [{"path": image, "bytes": None} for image in images]}
    features = datasets.Features(image=_image())
    folders = [os.path.basename(os.path.dirname(image)) for image in images]
    if len(set(folders)) > 1 and len({len(Path(image).parts) for image in images}) == 1:
        rows["label"] = folders
        features["label"] = datasets.ClassLabel(names=sorted(set(folders)))
    return datasets.Dataset.from_dict(rows, features=features)


def _image() -> Any:
    return require("datasets").Image(decode=False)


def _listed(source: str, files: Sequence[str]) -> str:
    """Returns how a message on files of a source begins: "3 files of SOURCE (a.png, b.png, …) are"."""
    root = os.path.abspath(source)
    names = [os.path.relpath(file, root) for file in files[:_NAMED]]
    more = ", …" if len(files) > _NAMED else ""
    files_are = "1 file of" if len(files) == 1 else f"{len(files):,} files of"
    return f"{files_are} {shown_name(source)} ({', '.join(names)}{more}) {'is' if len(files) == 1 else 'are'}"
