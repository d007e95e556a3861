"""
Open images and convert them to RGB the way a viewer shows them.

This exists because transformers' own conversion differs between the versions we support and from what people see:
5.17 drops the alpha channel, so that the transparent part of a web picture shows whatever colour lies beneath it,
mostly black (5.23 composites over white, as we do); both clip 16-bit grey at 255, which leaves it nearly white; and
neither turns a PIL image by its EXIF orientation.
"""

import base64
import binascii
import http.client
import os
import struct
import urllib.request
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from .image_arrays_cbvila import to_channels_last, to_levels, to_numpy

EXIF_ORIENTATION = 0x0112
WHITE = (255, 255, 255)
# What Pillow's decoders raise on broken data; OSError includes "image file is truncated".
DECODING_ERRORS = (OSError, RuntimeError, SyntaxError, ValueError, EOFError, LookupError, TypeError, struct.error)


def load_image(source: Any, timeout: float = 30.0) -> Image.Image:
    """
    Open an image and convert it to RGB.

    Args:
        source: a path, an http(s) URL, a `data:image/...;base64,` URL, or anything `to_rgb` takes.
        timeout: seconds to wait for a URL.

    Returns:
        The image in mode RGB, turned upright; the first frame if it is animated.

    Raises:
        FileNotFoundError: no file at that path.
        ValueError: the source is not an image, is damaged or empty, too large, or cannot be downloaded.
    """
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        return _decode(BytesIO(_download(source, timeout)), repr(source))
    if isinstance(source, str) and source.startswith("data:"):
        return _decode(BytesIO(_decode_data_url(source)), repr(source[:40] + "..."))
    if isinstance(source, (str, os.PathLike)):
        return _load_file(os.fspath(source))
    return to_rgb(source)


def to_rgb(image: Any, input_data_format: Any = None) -> Image.Image:
    """
    Convert an image in memory to a PIL image of mode RGB.

    Transparency (alpha channel, transparent palette entry or colour) is composited over white. A PIL image is turned
    by its EXIF orientation. 16-bit grey is scaled to 8 bits. An animated PIL image gives its current frame, which is
    the first one unless the caller moved on. CMYK is converted without its colour profile, as Pillow does.

    Args:
        image: a PIL image, or a numpy array or tensor of shape (H, W), (H, W, C) or (C, H, W) with C in {1, 3, 4} and
            values as described in `to_levels`.
        input_data_format: where an array has its channels; inferred if None.

    Raises:
        ValueError: the image is empty, damaged, has other channels or other values, or is of another type.
    """
    if isinstance(image, Image.Image):
        return _pil_to_rgb(image, repr(getattr(image, "filename", "") or "the image"))
    if isinstance(image, (np.ndarray, torch.Tensor)):
        levels = to_levels(to_channels_last(to_numpy(image), input_data_format))
        return _levels_to_rgb(levels)
    raise ValueError(
        f"an image must be a PIL image, a numpy array, a torch tensor, a path or a URL, got {type(image).__name__}"
    )


def _download(url: str, timeout: float) -> bytes:
    # Several picture hosts refuse urllib's default user agent.
    request = urllib.request.Request(url, headers={"User-Agent": "transformers-cbvila"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return response.read()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ValueError(f"could not download {url!r}: {error}; save the image yourself and pass its path") from error


def _decode_data_url(url: str) -> bytes:
    header, _, payload = url.partition(",")
    try:
        if not header.endswith(";base64"):
            raise ValueError("not base64")
        return base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"expected 'data:image/...;base64,' and base64 text, got {url[:40]!r}...: {error}") from error


def _load_file(path: str) -> Image.Image:
    if not os.path.exists(path):
        raise FileNotFoundError(
            f"there is no image file at {path!r} (relative paths start at {os.getcwd()!r}); pass an existing path, "
            "a URL that starts with http:// or https://, or a PIL image"
        )
    if not os.path.isfile(path):
        raise ValueError(f"{path!r} is not a file; pass the path of one image file")
    if os.path.getsize(path) == 0:
        raise ValueError(f"the image file {path!r} is empty (0 bytes); copy or download it again")
    return _decode(path, repr(path))


def _decode(file: Any, name: str) -> Image.Image:
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
        image = _turn_upright(image)
    except Image.DecompressionBombError as error:
        raise _bomb_error(name, error) from error
    except DECODING_ERRORS as error:
        raise _damaged_error(name, error) from error
    if image.mode.startswith("I") or image.mode == "F":
        return _levels_to_rgb(_deep_grey_levels(image))
    return _composite_over_white(image) if image.has_transparency_data else image.convert("RGB")


def _turn_upright(image: Image.Image) -> Image.Image:
    # exif_transpose copies the image even if there is nothing to turn.
    orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    return image if orientation == 1 else ImageOps.exif_transpose(image)


def _composite_over_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":  # premultiplied grey, which Pillow converts to LA only
        image = image.convert("LA")
    image = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, WHITE)
    canvas.paste(image, mask=image.getchannel("A"))
    return canvas


def _deep_grey_levels(image: Image.Image) -> np.ndarray:
    """(H, W, 1) uint8 levels of an image with one channel deeper than 8 bits (modes I;16*, I and F)."""
    values = np.asarray(image)[..., None]
    # Mode I holds 32-bit numbers: 16-bit ones by habit, but 8-bit ones after `convert("I")`.
    if image.mode.startswith("I;16") or (image.mode == "I" and values.min() >= 0 and 255 < values.max() <= 65535):
        levels = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    else:
        levels = to_levels(values)
    transparent = image.info.get("transparency")
    return levels if transparent is None else np.where(values == transparent, np.uint8(255), levels)


def _levels_to_rgb(levels: np.ndarray) -> Image.Image:
    """The RGB image of (H, W, C) uint8 levels, C in {1, 3, 4}."""
    channels = levels.shape[-1]
    image = Image.fromarray(np.ascontiguousarray(levels[..., 0] if channels == 1 else levels))
    return _composite_over_white(image) if channels == 4 else image.convert("RGB")


def _damaged_error(name: str, error: Exception) -> ValueError:
    return ValueError(f"{name} is truncated or damaged ({error}); copy or download it again, or leave it out")


def _bomb_error(name: str, error: Exception) -> ValueError:
    return ValueError(
        f"{name} is too large to decode safely ({error}); make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS if you "
        "trust it"
    )
