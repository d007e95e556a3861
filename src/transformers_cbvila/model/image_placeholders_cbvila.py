"""The tokens that stand for images in the input of a language model: `<image>`, k times for each image."""

from typing import Any

import torch
from torch import Tensor

from .messages_cbvila import shown

IMAGE_TOKEN = "<image>"


def placeholder_id(tokenizer: Any, image_token: str = IMAGE_TOKEN) -> int:
    """Returns the id of a tokenizer's image token: its own, or the next one if it has none yet."""
    return tokenizer.get_vocab().get(image_token, len(tokenizer))


def check_images_of_texts(counts: list[int], groups: list[int] | None, images: int, image_token: str) -> None:
    """Raises a ValueError unless texts have an image token for each image.

    Args:
        counts: Number of image tokens in each text.
        groups: Number of images of each text, where images come in a list for each.
        images: Number of images in all.
        image_token: The token.
    """
    way_out = f"write one {image_token} in a text for each of its images, where the image is to be read"
    if groups is not None and groups != counts:
        raise ValueError(f"texts have {shown(counts)} {image_token} and {shown(groups)} image(s): {way_out}")
    if sum(counts) != images:
        raise ValueError(f"{len(counts)} text(s) have {sum(counts)} {image_token}, for {images} image(s): {way_out}")


def check_runs(rows: list[list[int]], expected: list[int], image_token_id: int) -> None:
    """Raises a ValueError if a row of token ids is empty, or has fewer or more image tokens than expected."""
    for index, (row, number) in enumerate(zip(rows, expected, strict=True)):
        if not len(row):
            raise ValueError(f"text {index} has no tokens: a language model continues at least one")
        found = list(row).count(image_token_id)
        if found != number:
            raise ValueError(
                f"truncation to {len(row)} tokens cuts the images of text {index}, of whose {number} tokens {found} "
                "are left: raise max_length, or shorten the text"
            )


def check_image_tokens(tokens: int, images: int, config: Any) -> None:
    """Raises a ValueError unless there are k tokens for each image."""
    k = config.num_image_tokens
    if tokens == k * images:
        return
    raise ValueError(
        f"input_ids hold {tokens} image tokens (image_token_id={config.image_token_id}) and pixel_values {images} "
        f"image(s), each of which takes {k}: expected {k * images}. Use a CBViLAConditionalGenerationProcessor with "
        f"num_image_tokens={k}, one {IMAGE_TOKEN} in the text for each image, and a tokenizer that gives it this id."
    )


def order_of_expanded_images(input_ids: Tensor, config: Any, times: int) -> Tensor:
    """Returns the indices of images when each text (B, T) with its images is repeated, one after the other."""
    counts = ((input_ids == config.image_token_id).sum(-1) // config.num_image_tokens).tolist()
    groups = torch.arange(sum(counts)).split(counts)
    return torch.cat([group.repeat(times) for group in groups])
