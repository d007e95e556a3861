"""Which images belong to which texts of a batch: `image_index`, one image per text, or a list of images per text."""

from typing import Any

import torch

from .messages_cbvila import shown


def has_image_lists(images: Any) -> bool:
    """Returns whether images are a list of lists, one per text."""
    return isinstance(images, (list, tuple)) and all(isinstance(group, (list, tuple)) for group in images)


def group_images(pixel_values: Any, counts: list[int], num_texts: int) -> Any:
    """Groups images (I, 3, H, W) as (B, n, 3, H, W) if each text has n > 1 of them; otherwise returns them unchanged.

    With n = 1 texts may have no image. There are then fewer images than texts, for which models need `image_index`.

    Args:
        pixel_values: An array, a tensor or a list of images.
        counts: Number of images of each text.
        num_texts: Number of texts B.

    Raises:
        ValueError: If there is not one list per text, or their lengths differ.
    """
    n = max(counts)
    if len(counts) != num_texts or n > 1 and min(counts) < n:
        raise ValueError(
            f"got lists of {shown(counts)} image(s) for {num_texts} text(s); pass one list for each "
            "text, all of the same length, or all images in one list and image_index"
        )
    if n < 2:
        return pixel_values
    if isinstance(pixel_values, list):
        return [pixel_values[start : start + n] for start in range(0, len(pixel_values), n)]
    return pixel_values.reshape(-1, n, *pixel_values.shape[1:])


def check_counts(data: dict[str, Any]) -> None:
    """Raises a ValueError unless there are as many images as texts."""
    images, texts = len(data["pixel_values"]), len(data["input_ids"])
    if images != texts:
        raise ValueError(
            f"got {images} image(s) and {texts} text(s); pass equal numbers, or the image of each text, e.g. "
            "image_index=[0, 0] for two texts about one image, or images=[[first, second]] for a text about two"
        )


def check_image_index(image_index: Any, data: dict[str, Any]) -> list[int]:
    """Returns `image_index` as a list of B numbers.

    Args:
        image_index: A list, an array or a tensor (B,).
        data: The processed images and texts.

    Raises:
        ValueError: If images or texts are missing, or they are not B whole numbers from 0 to I - 1.
    """
    if not {"pixel_values", "input_ids"} <= data.keys():
        raise ValueError("image_index is the image of each text; pass images and text with it")
    images, texts = len(data["pixel_values"]), len(data["input_ids"])
    numbers = torch.as_tensor(image_index)
    if numbers.dtype.is_floating_point or numbers.dtype == torch.bool or numbers.shape != (texts,):
        raise ValueError(
            f"image_index must hold {texts} whole numbers, one for each text; "
            f"got shape {tuple(numbers.shape)} of {numbers.dtype}"
        )
    outside = [number for number in numbers.tolist() if not 0 <= number < images]
    if outside:
        raise ValueError(f"image_index holds {outside[0]}, but the {images} image(s) are numbered from 0")
    return numbers.tolist()
