"""Addresses of images that are drawn when they are read: "scenes://train/vqa/12/image?size=64&style=flat&…".

The map of an image's kinds is at the same address with "image.kinds".

Rows of `datasets` have them as paths, so that a table of all rows takes little memory and no time for drawing.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import lru_cache
from urllib.parse import parse_qsl, urlencode, urlsplit

from PIL import Image

from ..builtin_options import parse_options
from .label_classes import kind_map
from .options import SceneOptions
from .scene_rows import SceneRows

START = "scenes://"
_MAP = ".kinds"  # at the end of a column, for the map of its image


class Addresses:
    """Writes the addresses of a split's images for a task."""

    def __init__(self, rows: SceneRows) -> None:
        options = {name: value for name, value in asdict(rows.options).items() if name != "rows"}
        self._start = f"{START}{rows.split}/{rows.task}"
        self._end = urlencode(options)

    def of(self, number: int, column: str) -> str:
        """Returns the address of one image of a row."""
        return f"{self._start}/{number}/{column}?{self._end}"


def label_map_of(address: str) -> str:
    """Returns the address of the map of kinds (see [`kind_map`]) that belongs to an image's address."""
    start, mark, options = address.partition("?")
    return f"{start}{_MAP}{mark}{options}"


def image_at(address: str) -> Image.Image:
    """Draws the image that an address names.

    Raises:
        ValueError: If it names none.
    """
    parts = urlsplit(address)
    try:
        task, number, column = parts.path.strip("/").split("/")
        rows = _rows(parts.query, parts.netloc, task)
        if column.endswith(_MAP):
            scene = rows.scenes(int(number))[column.removesuffix(_MAP)]
            return Image.fromarray(kind_map(scene, rows.options.size))
        return rows.image(int(number), column)
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"{address} names no image of scenes ({error})") from error


@lru_cache(maxsize=64)
def _rows(options: str, split: str, task: str) -> SceneRows:
    text = ",".join(f"{name}={value}" for name, value in parse_qsl(options))
    rows = SceneRows(parse_options("scenes", text, SceneOptions), split, task)
    # whether a row exists is for whoever wrote its address
    return SceneRows(replace(rows.options, rows=rows.options.most_rows(split)), split, task)
