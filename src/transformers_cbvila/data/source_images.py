"""The images of a source's rows: their column, not decoded, and the paths of their files."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from ..extras import require
from ..model.messages_cbvila import shown
from .images import is_complete, locate
from .source_files import find_source, shown_name

if TYPE_CHECKING:
    from datasets import Dataset


def encoded_images(rows: Dataset, column: str, source: str) -> Dataset:
    """Returns one column of a source's rows as `image`, not decoded. ValueError if it holds anything else."""
    datasets = require("datasets")
    rows = rows.select_columns([column])
    _check_holds_images(rows.features[column], column, source)
    if column != "image":
        rows = rows.rename_column(column, "image")
    if getattr(rows.features["image"], "dtype", None) in ("string", "large_string"):  # the latter in CSV files
        place = image_locator(source)
        rows = datasets.Dataset.from_dict({"image": [place(path) for path in rows["image"]]}, split=rows.split)
    return rows.cast_column("image", datasets.Image(decode=False))


def image_locator(source: str) -> Callable[[Any], Any]:
    """Returns a function that completes the paths in a source's rows, and leaves other values as they are."""
    look = cache(lambda: find_source(source))  # listing a large folder is slow

    def place(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if not value or is_complete(value):
            return value or None
        found = look()
        if found is None:
            return value
        if found.folder is None:
            raise ValueError(
                f"Image {shown(value)} of {shown_name(source)} counts from the folder of its file, and the pattern "
                "has several: name the folders one by one, or give complete paths."
            )
        return locate(value, found.folder)

    return place


def _check_holds_images(feature: Any, column: str, source: str) -> None:
    """Raises a ValueError unless a column holds images of `datasets`, records of bytes and path, paths or bytes."""
    datasets = require("datasets")
    is_record = isinstance(feature, dict) and {"bytes", "path"} <= set(feature)
    kinds = ("string", "large_string", "binary", "large_binary", "null")
    if isinstance(feature, datasets.Image) or is_record or getattr(feature, "dtype", None) in kinds:
        return
    if isinstance(feature, datasets.List | datasets.LargeList | list):
        raise ValueError(
            f"Column {column!r} of {source} holds lists; expected an image in each row. Give every image of a row a "
            "column of its own, and name them all as image_column."
        )
    raise ValueError(
        f"Column {column!r} of {source} holds {getattr(feature, 'dtype', feature)}; expected images, paths or the "
        "bytes of image files. Name another as image_column."
    )
