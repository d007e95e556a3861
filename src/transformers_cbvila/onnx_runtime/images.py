"""Images as inputs of exported models, as CBViLAImageProcessorPil makes them.

Shapes: B images, H height, W width.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ..model.image_loading_cbvila import load_image


def pixel_values(images: Sequence[Any], options: Mapping[str, Any]) -> np.ndarray:
    """Returns images as `pixel_values` (B, 3, H, W), resized, rescaled and normalized.

    Args:
        images: B images as `load_image` takes them: paths, PIL images, arrays, URLs.
        options: The entry `images` of export.json.

    Raises:
        FileNotFoundError: If there is no file at an image's path.
        ValueError: If one is not an image.
    """
    size, resample = (options["width"], options["height"]), Image.Resampling(options["resample"])
    levels = [np.asarray(load_image(image).resize(size, resample), dtype=np.float32) for image in images]
    mean, std = (np.asarray(options[name], dtype=np.float32) for name in ("mean", "std"))
    values = (np.stack(levels) * np.float32(options["rescale_factor"]) - mean) / std
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))
