"""Metadata of image files: orientation, and reading pixels of files whose metadata is damaged.

Cameras and editors write invalid metadata, and Pillow fails on some of it although all pixels are intact.
"""

import struct
import warnings
from collections.abc import Iterator

from PIL import Image

from .messages_cbvila import shown_error

EXIF_ORIENTATION = 0x0112
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_KEPT_PNG = {b"tRNS"}  # the only ancillary chunk that changes pixels: transparency
_START_OF_SCAN = 0xDA
# EXIF, color profile, comment …; not APP0 and APP14, which have the color encoding
_SKIPPED_JPEG = {*range(0xE1, 0xEE), 0xEF, 0xFE}


def turn_upright(image: Image.Image, name: str) -> Image.Image:
    """Transposes an image by its EXIF orientation, or warns if that cannot be read.

    `ImageOps.exif_transpose` would also write all other EXIF tags, which fails for invalid ones.
    """
    try:
        transpose = _TRANSPOSES.get(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception as error:  # parsers of damaged bytes raise errors of any type
        warnings.warn(
            f"The EXIF data of {name} cannot be read ({shown_error(error)}): the image is not turned.", stacklevel=2
        )
        return image
    return image if transpose is None else image.transpose(transpose)


def without_metadata(file: bytes) -> bytes | None:
    """Returns a PNG or JPEG file without metadata; None for other files or if its structure is damaged."""
    try:
        if file.startswith(_PNG):
            return _PNG + b"".join(_png_chunks(file))
        return _JPEG + b"".join(_jpeg_segments(file)) if file.startswith(_JPEG) else None
    except (struct.error, IndexError):
        return None


def _png_chunks(file: bytes) -> Iterator[bytes]:
    position = len(_PNG)
    while position < len(file):
        length, kind = struct.unpack_from(">I4s", file, position)
        end = position + 12 + length
        if kind[:1].isupper() or kind in _KEPT_PNG:
            yield file[position:end]
        position = end


def _jpeg_segments(file: bytes) -> Iterator[bytes]:
    position = len(_JPEG)
    while file[position + 1] != _START_OF_SCAN:
        kind, length = struct.unpack_from(">xBH", file, position)
        if kind not in _SKIPPED_JPEG:
            yield file[position : position + 2 + length]
        position += 2 + length
    yield file[position:]
