"""Opens images and converts them to RGB as viewers show them.

The conversion of transformers differs between versions and from viewers: 5.17 drops the alpha channel, so that
transparent pixels have any color, mostly black (5.23 composites over white, as this file does); both clip 16-bit grey
at 255, which makes it nearly white; and neither transposes PIL images by their EXIF orientation.
"""

import os
import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from .image_arrays_cbvila import is_array, to_channels_last, to_levels, to_numpy
from .image_metadata_cbvila import turn_upright, without_metadata
from .image_sources_cbvila import decode_base64, decode_data_url, download, is_data_url, is_web_address, to_path
from .messages_cbvila import shown, shown_error

WHITE = (255, 255, 255)
# Errors of Pillow's decoders for damaged data; OSError includes "image file is truncated".
DECODING_ERRORS = (
    *(OSError, RuntimeError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)
_LONGEST_PATH = 255  # longer texts are not paths, and are shortened in messages


def load_image(source: Any, timeout: float = 30.0) -> Image.Image:
    """Opens an image and converts it to RGB.

    Args:
        source: A path, an http(s) or file URL, a `data:image/...;base64,` URL, base64 text, the bytes of an image
            file, or an image for `to_rgb`.
        timeout: Seconds to wait for a URL.

    Returns:
        The image in mode RGB, upright; the first frame if it is animated.

    Raises:
        FileNotFoundError: If there is no file at the path.
        ValueError: If the source is not an image, is damaged, empty or too large, or cannot be downloaded.
    """
    if isinstance(source, bytes):
        return _decode(source, f"the image ({len(source):,} bytes)")
    if isinstance(source, os.PathLike):
        return _load_file(os.fspath(source))
    if not isinstance(source, str):
        return to_rgb(source)
    if is_web_address(source):
        return _decode(download(source, timeout), shown(source, _LONGEST_PATH))
    if is_data_url(source):
        return _decode(decode_data_url(source), shown(source))
    source = to_path(source)
    decoded = b"" if os.path.exists(source) else decode_base64(source)
    # Many paths are also valid base64, but not that of an image.
    return _decode(decoded, shown(source)) if _is_image(decoded) else _load_file(source)


def to_rgb(image: Any, input_data_format: Any = None) -> Image.Image:
    """Converts an image in memory to a PIL image of mode RGB.

    Transparency (alpha channel, transparent palette entry or color) is composited over white. PIL images are
    transposed by their EXIF orientation. 16-bit grey is scaled to 8 bits. An animated PIL image is converted at its
    current frame, initially the first. CMYK is converted without its color profile, as in Pillow.

    Args:
        image: A PIL image, or a numpy array or tensor of shape (H, W), (H, W, C) or (C, H, W) with C in {1, 3, 4} and
            values as described in `to_levels`.
        input_data_format: `"channels_first"` or `"channels_last"` for arrays; by default inferred from the shape.

    Raises:
        ValueError: If the image is empty, damaged, has other channels or values, or is of another type.
    """
    if isinstance(image, Image.Image):
        filename = getattr(image, "filename", "")
        return _pil_to_rgb(image, _shown_path(filename) if filename else "the image")
    if is_array(image):
        levels = to_levels(to_channels_last(to_numpy(image), input_data_format))
        return _levels_to_rgb(levels)
    raise ValueError(
        f"an image must be a PIL image, a numpy array, a torch tensor, a path or a URL, got a "
        f"{type(image).__name__}, {shown(image)}"
    )


def _load_file(path: str) -> Image.Image:
    name = _shown_path(path)
    if not os.path.exists(path):
        raise FileNotFoundError(
            f"there is no image file at {name} (relative paths start at {os.getcwd()!r}); pass an existing path, "
            "a URL that starts with http:// or https://, or a PIL image"
        )
    if not os.path.isfile(path):
        raise ValueError(f"{name} is not a file; pass the path of one image file")
    if os.path.getsize(path) == 0:
        raise ValueError(f"the image file {name} is empty (0 bytes); copy or download it again")
    return _decode(path, name)


def _decode(file: str | bytes, name: str) -> Image.Image:
    """Returns the image of a file, given by path or bytes; warns if only its metadata is damaged."""
    try:
        return _read(file if isinstance(file, str) else BytesIO(file), name)
    except ValueError as error:
        content = file if isinstance(file, bytes) else Path(file).read_bytes()
        pixels = without_metadata(content)
        if pixels is None or len(pixels) == len(content):
            raise
        try:
            image = _read(BytesIO(pixels), name)
        except ValueError:
            raise error from error.__cause__
        warnings.warn(f"{name} was read without its metadata, which is damaged ({error.__cause__}).", stacklevel=2)
        return image


def _is_image(file: bytes) -> bool:
    try:
        with Image.open(BytesIO(file)):
            return True
    except DECODING_ERRORS:
        return False


def _read(file: Any, name: str) -> Image.Image:
    try:
        image = Image.open(file)
    except UnidentifiedImageError as error:
        raise ValueError(f"{name} is not an image that Pillow can read; convert it to PNG or JPEG") from error
    except Image.DecompressionBombError as error:
        raise _bomb_error(name, error) from error
    except PermissionError:
        raise
    except DECODING_ERRORS as error:
        raise _damaged_error(name, error) from error
    with image:
        return _pil_to_rgb(image, name)


def _pil_to_rgb(image: Image.Image, name: str) -> Image.Image:
    if 0 in image.size:
        raise ValueError(f"{name} has no pixels: {image.width} x {image.height}; width and height must be at least 1")
    try:
        image.load()
        image = turn_upright(image, name)
    except Image.DecompressionBombError as error:
        raise _bomb_error(name, error) from error
    except DECODING_ERRORS as error:
        raise _damaged_error(name, error) from error
    if image.mode.startswith("I") or image.mode == "F":
        return _levels_to_rgb(_deep_grey_levels(image))
    return _composite_over_white(image) if image.has_transparency_data else image.convert("RGB")


def _composite_over_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":  # premultiplied grey, which Pillow only converts to LA
        image = image.convert("LA")
    image = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, WHITE)
    canvas.paste(image, mask=image.getchannel("A"))
    return canvas


def _deep_grey_levels(image: Image.Image) -> np.ndarray:
    """Returns (H, W, 1) uint8 levels of an image with one channel of more than 8 bits (modes I;16*, I and F)."""
    values = np.asarray(image)[..., None]
    # Mode I has 32-bit numbers: usually 16-bit levels, but 8-bit ones after `convert("I")`.
    if image.mode.startswith("I;16") or (image.mode == "I" and values.min() >= 0 and 255 < values.max() <= 65535):
        levels = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    else:
        levels = to_levels(values)
    transparent = image.info.get("transparency")
    return levels if transparent is None else np.where(values == transparent, np.uint8(255), levels)


def _levels_to_rgb(levels: np.ndarray) -> Image.Image:
    """Returns the RGB image of (H, W, C) uint8 levels, C in {1, 3, 4}."""
    channels = levels.shape[-1]
    image = Image.fromarray(np.ascontiguousarray(levels[..., 0] if channels == 1 else levels))
    return _composite_over_white(image) if channels == 4 else image.convert("RGB")


def _shown_path(path: str | os.PathLike) -> str:
    text = os.fspath(path)
    return shown(text, _LONGEST_PATH) if len(text) <= _LONGEST_PATH else shown(text)


def _damaged_error(name: str, error: Exception) -> ValueError:
    return ValueError(
        f"{name} is truncated or damaged ({shown_error(error)}); copy or download it again, or leave it out"
    )


def _bomb_error(name: str, error: Exception) -> ValueError:
    return ValueError(
        f"{name} is too large to decode safely ({error}); make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS if you "
        "trust it"
    )
