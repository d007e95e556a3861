"""Converts image arrays of any dtype and layout to 8-bit levels with channels last."""

import sys
from typing import Any

import numpy as np

CHANNEL_COUNTS = (1, 3, 4)


def is_array(image: Any) -> bool:
    """Returns whether an image is a numpy array or a torch tensor."""
    # Not imported: exported models read images in processes without torch, where nothing is a tensor.
    torch = sys.modules.get("torch")
    return isinstance(image, np.ndarray) or (torch is not None and isinstance(image, torch.Tensor))


def to_numpy(image: Any) -> np.ndarray:
    """Returns an image, a numpy array or a torch tensor, as a numpy array on the CPU; bfloat16 becomes float32."""
    if isinstance(image, np.ndarray):
        return image
    image = image.detach().cpu()
    return (image.float() if str(image.dtype) == "torch.bfloat16" else image).numpy()


def is_unit_float(values: np.ndarray) -> bool:
    """Returns whether values are floats in 0..1, and not levels 0..255 stored as floats."""
    return np.issubdtype(values.dtype, np.floating) and bool(values.max() <= 1)


def to_levels(values: np.ndarray) -> np.ndarray:
    """Converts numbers of any shape to uint8 levels 0..255.

    Booleans become 0 and 255. Integers must be in 0..255. Floats are in 0..1 if none is greater than 1; otherwise they
    must be whole numbers in 0..255, as the scale of others (overshoots of a resize, normalized images) is unknown.

    Raises:
        ValueError: If there are NaN or infinite values or numbers outside these ranges, or the dtype is not numeric.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if np.issubdtype(values.dtype, np.integer):
        _check_range(values, f"whole numbers ({values.dtype})")
        return values.astype(np.uint8)
    if np.issubdtype(values.dtype, np.floating):
        return _float_levels(values)
    raise ValueError(f"an image array must hold numbers, got dtype {values.dtype}; convert it to uint8")


def _float_levels(values: np.ndarray) -> np.ndarray:
    if not np.isfinite(values).all():
        raise ValueError("the image holds NaN or infinite values; replace them, e.g. with numpy.nan_to_num")
    if is_unit_float(values) and values.min() >= 0:
        return np.rint(values.astype(np.float32) * 255).astype(np.uint8)
    _check_range(values, f"floats ({values.dtype})")
    levels = np.rint(values)
    if not np.array_equal(levels, values):
        raise ValueError(
            f"float images must lie in [0, 1] or be whole numbers in 0..255, got fractions up to {values.max():.6g}; "
            "clip to [0, 1], or round to uint8 if the scale is 0..255"
        )
    return levels.astype(np.uint8)


def _check_range(values: np.ndarray, kind: str) -> None:
    low, high = values.min(), values.max()
    if low < 0 or high > 255:
        raise ValueError(
            f"the image holds {kind} from {low:.6g} to {high:.6g}, expected 0..255 (or floats in [0, 1]); "
            "rescale it, and pass it before any normalization"
        )


def to_channels_last(values: np.ndarray, input_data_format: Any = None) -> np.ndarray:
    """Transposes an image to (H, W, C), C in {1, 3, 4}.

    Args:
        values: (H, W), (H, W, C) or (C, H, W).
        input_data_format: `"channels_first"` or `"channels_last"`; by default inferred from the shape, as in
            transformers.

    Raises:
        ValueError: If the array is empty, or has another number of dimensions or channels.
    """
    if values.size == 0:
        raise ValueError(f"the image is empty: shape {values.shape}; height and width must be at least 1")
    if values.ndim == 2:
        return values[..., None]
    if values.ndim != 3:
        raise ValueError(
            f"an image has 2 dimensions (H, W) or 3, (H, W, C) or (C, H, W); got shape {values.shape}; "
            "pass several images as a list or as one 4-dimensional array"
        )
    first = _is_channels_first(values, input_data_format)
    values = np.moveaxis(values, 0, -1) if first else values
    if values.shape[-1] not in CHANNEL_COUNTS:
        raise _channel_error(values.shape[-1])
    return values


def _is_channels_first(values: np.ndarray, input_data_format: Any) -> bool:
    # Imported here for processes without transformers.
    from transformers.image_utils import ChannelDimension, infer_channel_dimension_format

    if input_data_format is None:
        if not {values.shape[0], values.shape[-1]} & set(CHANNEL_COUNTS):
            raise _channel_error(f"shape {values.shape}")
        input_data_format = infer_channel_dimension_format(values, num_channels=CHANNEL_COUNTS)
    return ChannelDimension(input_data_format) == ChannelDimension.FIRST


def _channel_error(got: Any) -> ValueError:
    return ValueError(
        f"an image has 1 (grey), 3 (RGB) or 4 (RGBA) channels, first or last; got {got}; "
        "select the channels to use, e.g. image[..., :3]"
    )
