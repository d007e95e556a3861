"""The image of a row: where its file is, and the function with which every reader of rows decodes it."""

import os
import re
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from ..extras import require
from ..model.image_loading_cbvila import load_image, to_rgb
from ..model.messages_cbvila import shown, shown_error
from .bad_rows import WAY_OUT, BadRowError
from .builtin_sources import BUILTIN_SOURCES

# Endings of image files.
IMAGE_ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif"),
    *(".jp2", ".ico", ".tga", ".ppm", ".pgm", ".pbm", ".pnm"),
)
_FILE_NAME = "file_name"  # the column, or the end of its name, that names image files, as in metadata.jsonl
_START = 16  # bytes that an error shows: enough to recognise an HTML page
_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]{64,}=*\s*")  # an image itself: names of files have an ending
_FETCHED = ("http://", "https://", "file://", "data:")  # what `load_image` takes besides paths


def read_image(value: Any) -> Image.Image:
    """Returns the image of a row as RGB, from a PIL image, path, URL, bytes, array, or a record of bytes and path.

    Raises:
        ValueError: If there is none, or it cannot be read; the message does not name the row.
    """
    if isinstance(value, Mapping) and (value.get("bytes") or value.get("path")):
        value = value.get("bytes") or value["path"]
    if value is None or isinstance(value, Mapping) or isinstance(value, str | bytes) and not value:
        raise ValueError(f"it has no image ({shown(value)})")
    try:
        return _decoded(value)
    except UnidentifiedImageError as error:
        start = f"; it begins with {shown(value[:_START])}" if isinstance(value, bytes) else ""
        raise ValueError(f"its image cannot be read (Pillow knows no such format{start})") from error
    except Exception as error:  # decoders may raise anything
        raise ValueError(f"its image cannot be read ({shown_error(error)})") from error


def with_images(row: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """Returns a row whose `image`, or each of whose `images`, is decoded by [`read_image`].

    Args:
        row: With `image` or `images`.
        origin: What an error calls the row.

    Raises:
        ValueError: If it has no image, or one that cannot be read; the message names the row.
    """
    if "image" not in row and "images" not in row:
        raise ValueError(f"{origin} has no column 'image'; it has {shown(list(row), 200)}.")
    try:
        if "images" in row:
            return {**row, "images": [read_image(image) for image in row["images"]]}
        return {**row, "image": read_image(row["image"])}
    except ValueError as error:
        raise BadRowError(f"{origin}: {error}. {WAY_OUT}.") from error


def undecoded(rows: Any, column: str = "image") -> Any:
    """Returns a dataset whose images are not decoded, so that [`read_image`] does; other rows unchanged."""
    features = getattr(rows, "features", None)
    feature = features.get(column) if features else None
    if getattr(feature, "decode", False) is not True:
        return rows
    return rows.cast_column(column, require("datasets").Image(decode=False))


def resolve_image_column(column: str, names: Sequence[str]) -> str | None:
    """Returns the one of a source's columns that an image column means; None if there is none.

    Where `file_name` (or `left_file_name`) names image files, it stands for `image` (or `left`). A sample of a .tar
    has its image as `image`, whatever its ending, and the ending means the same.
    """
    named = _FILE_NAME if column == "image" else f"{column}_{_FILE_NAME}"
    if column in names or named in names:
        return column if column in names else named
    is_sample = "__key__" in names and "image" in names
    return "image" if is_sample and f".{column.rpartition('.')[2].lower()}" in IMAGE_ENDINGS else None


def image_columns(names: Sequence[str]) -> dict[str, str]:
    """Returns the column of images for each column that names their files: `image` for `file_name`."""
    ends = {name: name.removesuffix(_FILE_NAME) for name in names if name.endswith(_FILE_NAME)}
    return {name: start.removesuffix("_") or "image" for name, start in ends.items()}


def is_complete(path: str) -> bool:
    """Whether a path is a URL or absolute."""
    return path.lower().startswith(_FETCHED) or "://" in path or os.path.isabs(path)


def locate(path: str, folder: str) -> str:
    """Returns the path of an image that a file in `folder` names, unless it is complete or not a path.

    Backslashes, as in files made on Windows, separate folders unless a file has such a name.
    """
    if is_complete(path):
        return path
    there = os.path.join(folder, path)
    if _BASE64.fullmatch(path) and not os.path.exists(there):
        return path
    return os.path.join(folder, path.replace("\\", "/")) if "\\" in path and not os.path.exists(there) else there


def encoded(value: Any) -> Any:
    """Returns an image as `datasets` stores it, from a complete path or a file's bytes; anything else unchanged."""
    if isinstance(value, str):
        return {"path": value, "bytes": None} if value else None
    return {"path": None, "bytes": value} if isinstance(value, bytes) else value


def _decoded(value: Any) -> Image.Image:
    if isinstance(value, str | os.PathLike):
        path = os.fspath(value)
        drawn_by = BUILTIN_SOURCES.get(path.partition("://")[0]) if "://" in path else None
        if drawn_by is not None:
            return drawn_by.image_at(path)
        if "://" not in path or path.lower().startswith(_FETCHED):
            return load_image(path)
        # on the Hub, or in an archive: datasets opens it
        return to_rgb(require("datasets").Image().decode_example({"path": path, "bytes": None}))
    return to_rgb(Image.open(BytesIO(value)) if isinstance(value, bytes) else value)


def is_image_file(path: str) -> bool:
    """Whether a file is an image, by its ending."""
    return Path(path).suffix.lower() in IMAGE_ENDINGS
