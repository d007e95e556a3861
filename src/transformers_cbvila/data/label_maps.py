"""Label maps: the class of each pixel of an image, from a column, a built-in source or a segmentation model.

Maps are images of mode "I", with -1 where no class is known. Models see a class for each patch.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..model.messages_cbvila import shown, shown_error
from .builtin_sources import BUILTIN_SOURCES
from .segmentation import Segmenter

UNKNOWN = -1
_VOID = 255  # in maps of 8 bits, as most data sets have it
_MODES = ("1", "L", "P", "I", "I;16")  # of one channel


class LabelMaps:
    """Returns the label map of a row.

    Args:
        segmenter: Model whose classes take the place of those of the row.
        share: Share of the images whose classes are known, chosen by their contents.
    """

    def __init__(self, segmenter: Segmenter | None = None, share: float = 1.0) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"label_share={share} must be a share from 0 to 1.")
        self.segmenter, self.share = segmenter, share

    def __call__(self, row: Mapping[str, Any], image_id: int) -> Image.Image | None:
        """Returns the map of a row with `image` (RGB), in the image's size; `None` if its classes are not known.

        Raises:
            ValueError: If the map cannot be read; the message names the row, if it says what an error calls it.
        """
        if image_id % 10_000 >= self.share * 10_000:
            return None
        if self.segmenter is not None:
            found = self.segmenter(row["image"])
        elif row.get("label_map") is None:
            return None
        else:
            try:
                found = read_label_map(row["label_map"], row.get("label_classes") or ())
            except ValueError as error:
                raise ValueError(f"{row.get('origin') or 'A row'}: {error}.") from error
        size = row["image"].size
        return found if found.size == size else found.resize(size, Image.Resampling.NEAREST)


def read_label_map(value: Any, classes: Sequence[int] = ()) -> Image.Image:
    """Returns a label map from a PIL image, array, path, address, bytes, or a record of bytes and path.

    Args:
        value: The map, with one channel.
        classes: The class of each value of the map, from 0 on; other values are unknown. Without them values are the
            classes, and 255 is unknown in a map of 8 bits.

    Raises:
        ValueError: If the map cannot be read, or has several channels.
    """
    values, has_8_bits = _values_of(value)
    if len(classes):
        table = np.full(max(int(values.max()) + 1, len(classes)), UNKNOWN, dtype=np.int32)
        table[: len(classes)] = classes
        values = table[values]
    elif has_8_bits:
        values = np.where(values == _VOID, UNKNOWN, values)
    return Image.fromarray(values)


def patch_classes(label_map: Image.Image | None, rows: int, columns: int, patch_size: int) -> Tensor:
    """Returns the most frequent class of each patch (rows * columns,); of equally frequent ones the smallest.

    A patch is unknown (-1) if more of its pixels are unknown than are of any class.

    Args:
        label_map: The map, which is resized to the patches; `None` if no class is known.
        rows: Rows of patches.
        columns: Columns of patches.
        patch_size: Side of a patch in pixels.
    """
    if label_map is None:
        return torch.full((rows * columns,), UNKNOWN)
    resized = label_map.resize((columns * patch_size, rows * patch_size), Image.Resampling.NEAREST)
    patches = np.asarray(resized).reshape(rows, patch_size, columns, patch_size).swapaxes(1, 2)
    found, places = np.unique(patches.reshape(rows * columns, -1), return_inverse=True)
    places = places.reshape(rows * columns, -1) + np.arange(rows * columns)[:, None] * len(found)
    counts = np.bincount(places.ravel(), minlength=rows * columns * len(found)).reshape(-1, len(found))
    order = np.roll(np.arange(len(found)), -1 if found[0] == UNKNOWN else 0)  # unknown last: it wins no tie
    return torch.from_numpy(found[order][counts[:, order].argmax(1)].astype(np.int64))


def drawn_label_map(image: Any) -> dict[str, Any] | None:
    """Returns the address of the label map of a built-in source's image, as a record; `None` for other images."""
    path = image.get("path") if isinstance(image, Mapping) else image
    if not isinstance(path, str) or path.partition("://")[0] not in BUILTIN_SOURCES:
        return None
    address = BUILTIN_SOURCES[path.partition("://")[0]].label_map_of(path)
    return None if address is None else {"path": address, "bytes": None}


def _values_of(value: Any) -> tuple[np.ndarray, bool]:
    """Returns the values (H, W) of a map, and whether they have 8 bits."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    try:
        if isinstance(value, str) and value.partition("://")[0] in BUILTIN_SOURCES:
            value = BUILTIN_SOURCES[value.partition("://")[0]].image_at(value)
        elif isinstance(value, str | bytes):
            value = Image.open(BytesIO(value) if isinstance(value, bytes) else value)
        if isinstance(value, Image.Image) and value.mode not in _MODES:
            raise ValueError(
                f"its mode is {value.mode}; expected one channel with the number of a class in each pixel"
            )
        values = np.asarray(value)
        if values.ndim != 2 or not (np.issubdtype(values.dtype, np.integer) or values.dtype == bool):
            raise ValueError(f"it has shape {values.shape} of {values.dtype}; expected whole numbers (height, width)")
    except Exception as error:  # decoders may raise anything
        raise ValueError(f"its label map {shown(value, 60)} cannot be read ({shown_error(error)})") from error
    return values.astype(np.int32), values.dtype.itemsize == 1
