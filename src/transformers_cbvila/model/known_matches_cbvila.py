"""Which texts of a batch are known to match which images: positives of ITC, and never negatives of ITM.

Shapes: B pairs of the batch.
"""

import torch
from torch import Tensor


def known_matches(
    batch_size: int,
    device: torch.device,
    image_ids: Tensor | None = None,
    text_ids: Tensor | None = None,
    known_text_ids: Tensor | None = None,
) -> Tensor:
    """Returns which texts (columns) are known to match which images (rows), as (B, B) bool.

    A text matches the image of its pair and every copy of that image, equal texts match the same images, and a text
    listed among an image's other captions matches it. None of these is used as a negative.

    Args:
        batch_size: B.
        device: Device of the result.
        image_ids: (B,) int, equal for equal images; all different when absent.
        text_ids: (B,) int, equal for equal texts; all different when absent.
        known_text_ids: (B, C) int, ids of all texts known to match the image, padded with -1.
    """
    rows = torch.arange(batch_size, device=device)
    if text_ids is None:
        text_ids, known_text_ids = rows, None
    image_ids = rows if image_ids is None else image_ids
    return matches_between(image_ids, text_ids, known_text_ids, image_ids, text_ids)


def matches_between(
    image_ids: Tensor,
    text_ids: Tensor,
    known_text_ids: Tensor | None,
    other_image_ids: Tensor,
    other_text_ids: Tensor,
) -> Tensor:
    """Returns the [`known_matches`] (B, n) of the images of B pairs (rows) and the texts of n others (columns)."""
    matches = image_ids.unsqueeze(1) == other_image_ids.unsqueeze(0)
    matches = matches | (text_ids.unsqueeze(1) == other_text_ids.unsqueeze(0))
    if known_text_ids is not None:
        matches = matches | (known_text_ids.unsqueeze(1) == other_text_ids.view(1, -1, 1)).any(-1)
    return matches


@torch.no_grad()
def fingerprints(values: Tensor) -> Tensor:
    """Returns integer hashes (B,) of the rows of (B, …), equal for equal rows, as ids of batches without ids.

    The bits of each row are weighted and summed as integers, which is exact in any order of summation; sums of floats
    could differ between equal rows.
    """
    rows = values.flatten(1)
    if rows.is_floating_point():
        rows = rows.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[rows.element_size()])
    # One hashed 64-bit weight per position: with regular weights small numbers would collide.
    weights = scramble(torch.arange(1, rows.shape[1] + 1, device=rows.device))
    return (rows.long() * weights).sum(-1)  # wraps around


def scramble(numbers: Tensor) -> Tensor:
    """Hashes 64-bit integers with splitmix64; the result is the same on every device."""
    numbers = numbers * -0x61C8864680B583EB
    numbers = (numbers ^ (numbers >> 30 & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    numbers = (numbers ^ (numbers >> 27 & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    return numbers ^ (numbers >> 31 & 0x1FFFFFFFF)
