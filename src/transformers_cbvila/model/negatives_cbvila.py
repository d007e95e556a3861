"""Which image and which text are shown together as a mismatch in image-text matching (Sec. III-C).

Shapes: B batch.
"""

import torch
from torch import Tensor

from .losses_cbvila import at_least_fp32


def known_matches(
    batch_size: int,
    device: torch.device,
    image_ids: Tensor | None = None,
    text_ids: Tensor | None = None,
    known_text_ids: Tensor | None = None,
) -> Tensor:
    """Which texts (columns) are known to be true of which images (rows): (B, B) bool.

    A pair's own text is true of its image, a text is true of every copy of that image, equal texts share their
    images, and a text listed among an image's other captions is true of it. None of these is a negative.

    Args:
        image_ids: (B,) int, equal for equal images.
        text_ids: (B,) int, equal for equal texts.
        known_text_ids: (B, C) int, ids of all texts known to be true of the image, padded with -1.
    """
    matches = torch.eye(batch_size, dtype=torch.bool, device=device)
    if image_ids is not None:
        matches = matches | (image_ids.unsqueeze(1) == image_ids.unsqueeze(0))
    if text_ids is not None:
        matches = matches | (text_ids.unsqueeze(1) == text_ids.unsqueeze(0))
        if known_text_ids is not None:
            matches = matches | (known_text_ids.unsqueeze(1) == text_ids.view(1, -1, 1)).any(-1)
    return matches


@torch.no_grad()
def content_ids(values: Tensor) -> Tensor:
    """Ids (B,) that equal rows of (B, …) share, for batches that say nothing about what is the same.

    The bits of each row are weighted and summed as integers: exact, whatever the order of summation, where a sum of
    floats may differ between two places in a batch.
    """
    rows = values.flatten(1)
    if rows.is_floating_point():
        rows = rows.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[rows.element_size()])
    # One scrambled 64-bit weight per place (splitmix64): with regular weights small numbers would collide.
    weights = torch.arange(1, rows.shape[1] + 1, device=rows.device) * -0x61C8864680B583EB
    weights = (weights ^ (weights >> 30 & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    weights = (weights ^ (weights >> 27 & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    weights = weights ^ (weights >> 31 & 0x1FFFFFFFF)
    return (rows.long() * weights).sum(-1)  # wraps around


@torch.no_grad()
def choose_negatives(similarity: Tensor, matches: Tensor, hardness: float | None) -> tuple[Tensor, Tensor]:
    """One mismatched image for every text and one mismatched text for every image.

    Args:
        similarity: (B, B), images in rows, texts in columns, on the scale of logits.
        matches: (B, B) bool, pairs that may not be chosen.
        hardness: Draw in proportion to exp(hardness * similarity): 1 is the paper's choice, 0 is uniform. `None` draws
            nothing and takes the most similar, so that evaluation is deterministic.

    Returns:
        Image index for each text and text index for each image, (B,) each; -1 where everything matches.
    """
    # -inf before the softmax: zeroing after it leaves rows that sum to 0 when one similarity dominates.
    # A diverged model's NaN and infinities become numbers: its loss is to say what went wrong, not the draw here.
    logits = at_least_fp32(similarity).nan_to_num(nan=0.0).masked_fill(matches, float("-inf"))
    return _choose(logits.T, hardness), _choose(logits, hardness)


def _choose(logits: Tensor, hardness: float | None) -> Tensor:
    possible = (logits > float("-inf")).any(-1)
    if hardness is None:
        chosen = logits.argmax(-1)
    else:
        scaled = torch.where(logits == float("-inf"), logits, logits * hardness)
        # A row without any candidate gets an arbitrary one, and is marked below.
        scaled = torch.where(possible.unsqueeze(-1), scaled, torch.zeros_like(scaled))
        chosen = torch.multinomial(scaled.softmax(-1), 1).squeeze(-1)
    return torch.where(possible, chosen, torch.full_like(chosen, -1))


def itm_labels(negative_image_index: Tensor, negative_text_index: Tensor) -> Tensor:
    """Labels (3B,) of [true pairs, wrong images, wrong texts]: 1 matches, 0 does not, -100 there was no negative."""
    negatives = torch.cat([negative_image_index, negative_text_index])
    wrong = torch.where(negatives < 0, torch.full_like(negatives, -100), torch.zeros_like(negatives))
    return torch.cat([torch.ones_like(negative_image_index), wrong])
