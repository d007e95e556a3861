"""Converts images that a model draws to values that screens show."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .messages_cbvila import shown


def denormalize(image_processor: Any, pixel_values: Tensor) -> Tensor:
    """Returns images (B, 3, H, W), normalized as by the image processor, with values from 0 to 1, on the CPU in fp32.

    Raises:
        ValueError: If these are no batch of images with three channels.
    """
    if pixel_values.dim() != 4 or pixel_values.shape[1] != 3:
        raise ValueError(f"pixel_values have the shape {shown(tuple(pixel_values.shape))}; give (B, 3, H, W).")
    values = pixel_values.detach().float().cpu()
    if image_processor.do_normalize:
        mean, deviation = (
            torch.tensor(figures).view(3, 1, 1) for figures in (image_processor.image_mean, image_processor.image_std)
        )
        values = values * deviation + mean
    return values.clamp(0, 1)


def to_pictures(image_processor: Any, pixel_values: Tensor) -> np.ndarray:
    """Returns the same images as uint8 arrays (B, H, W, 3)."""
    levels = (denormalize(image_processor, pixel_values) * 255).round().to(torch.uint8)
    return levels.permute(0, 2, 3, 1).numpy()
