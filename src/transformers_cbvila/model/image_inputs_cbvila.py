"""The first step of both image processor backends: converts all images to 8-bit RGB arrays."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import ChannelDimension

from .image_arrays_cbvila import is_unit_float, to_numpy
from .image_loading_cbvila import load_image, to_rgb
from .item_lists_cbvila import by_position, holds_several


def to_rgb_inputs(processor: BaseImageProcessor, images: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Converts the arguments of `preprocess`, so that both backends read images in the same way.

    With `do_rescale=False` pixels are on their final scale. Floats in [0, 1] are then converted to 8 bits, as all
    images are, and scaled back.

    Args:
        processor: The image processor, which has the default options.
        images: An image or a (nested) list; see `load_image` and `to_rgb`. A 4-dimensional array is a batch.
        options: The keyword arguments of `preprocess`.

    Returns:
        A list of (H, W, 3) uint8 arrays, and the options for them. With `do_convert_rgb=False` both are returned as
        given.

    Raises:
        ValueError: If there are no images or one cannot be read; the message has its index.
        FileNotFoundError: If there is no file at one of the paths.
    """
    settings = {name: getattr(processor, name) for name in ("do_convert_rgb", "do_rescale", "input_data_format")}
    settings |= {name: value for name, value in options.items() if name in settings and value is not None}
    if not settings["do_convert_rgb"]:
        return images, options
    flat = _flatten(images)
    if not flat:
        raise ValueError("got an empty list of images; pass at least one")
    options = {**options, "input_data_format": ChannelDimension.LAST}
    arrays = [
        _to_rgb_array(image, index, len(flat), settings["input_data_format"]) for index, image in enumerate(flat)
    ]
    if not settings["do_rescale"] and _are_unit_floats(flat):
        options |= {"do_rescale": True, "rescale_factor": 1 / 255}
    return arrays, options


def _flatten(images: Any) -> list[Any]:
    if not holds_several(images):
        return [images]
    return [image for part in by_position(images, "images") for image in _flatten(part)]


def _to_rgb_array(image: Any, index: int, count: int, input_data_format: Any) -> np.ndarray:
    try:
        is_array = isinstance(image, (np.ndarray, torch.Tensor))
        return np.array(to_rgb(image, input_data_format) if is_array else load_image(image))
    except (ValueError, FileNotFoundError) as error:
        if count == 1:
            raise
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(f"image {index} of {count}: {error}") from error


def _are_unit_floats(images: list[Any]) -> bool:
    """Returns whether the images are floats in [0, 1]; all or none, as the batch has one scale."""
    flags = [_is_unit_float_image(image) for image in images]
    if any(flags) and not all(flags):
        raise ValueError(
            f"with do_rescale=False all images must be on one scale, but image {flags.index(True)} holds floats in "
            f"[0, 1] and image {flags.index(False)} levels 0..255; leave do_rescale on, which handles both"
        )
    return all(flags)


def _is_unit_float_image(image: Any) -> bool:
    if isinstance(image, (np.ndarray, torch.Tensor)):
        return is_unit_float(to_numpy(image))
    return isinstance(image, Image.Image) and image.mode == "F" and is_unit_float(np.asarray(image))
