"""What an image file says beside its pixels: how to turn them, and how to read them if the rest is damaged.

Cameras and editors write wrong metadata, and Pillow's decoders give up on some of it although every pixel is there.
"""

import struct
import warnings
from typing import Any

from PIL import Image

from .messages_cbvila import shown_error

EXIF_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_KEPT_PNG = {b"tRNS"}  # of the chunks that a reader may pass over, the one with pixels' transparency
_START_OF_SCAN = 0xDA
# EXIF, colour profile, comment …; not APP0 and APP14, which say how colours are coded
_PASSED_JPEG = {*range(0xE1, 0xEE), 0xEF, 0xFE}


def turn_upright(image: Image.Image, name: str) -> Image.Image:
    """Turn an image by its EXIF orientation. Where nobody can read that, it stays as it lies, with a warning.

    `ImageOps.exif_transpose` would write all other EXIF tags anew, which fails for wrong ones.
    """
    try:
        turn = _TURNS.get(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception as error:  # whatever a parser of damaged bytes may raise: the pixels are not concerned
        warnings.warn(
            f"The EXIF data of {name} cannot be read ({shown_error(error)}): the image is not turned.", stacklevel=2
        )
        return image
    return image if turn is None else image.transpose(turn)


def without_metadata(file: bytes) -> bytes | None:
    """A PNG or JPEG file without what is not needed for its pixels; None of another file, or where its parts end."""
    try:
        if file.startswith(_PNG):
            return _PNG + b"".join(_png_chunks(file))
        return _JPEG + b"".join(_jpeg_segments(file)) if file.startswith(_JPEG) else None
    except (struct.error, IndexError):
        return None


def _png_chunks(file: bytes) -> Any:
    place = len(_PNG)
    while place < len(file):
        length, kind = struct.unpack_from(">I4s", file, place)
        end = place + 12 + length
        if kind[:1].isupper() or kind in _KEPT_PNG:
            yield file[place:end]
        place = end


def _jpeg_segments(file: bytes) -> Any:
    place = len(_JPEG)
    while file[place + 1] != _START_OF_SCAN:
        kind, length = struct.unpack_from(">xBH", file, place)
        if kind not in _PASSED_JPEG:
            yield file[place : place + 2 + length]
        place += 2 + length
    yield file[place:]
