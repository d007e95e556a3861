"""Which image and which text are shown together as a mismatch in image-text matching (Sec. III-C).

Shapes: B batch, b those of its rows that are at hand: all of them, but for training on several processes.
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
    """[`known_matches`] of the images of some pairs (rows, B) with the texts of others (columns, n): (B, n) bool."""
    matches = image_ids.unsqueeze(1) == other_image_ids.unsqueeze(0)
    matches = matches | (text_ids.unsqueeze(1) == other_text_ids.unsqueeze(0))
    if known_text_ids is not None:
        matches = matches | (known_text_ids.unsqueeze(1) == other_text_ids.view(1, -1, 1)).any(-1)
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
    # One scrambled 64-bit weight per place: with regular weights small numbers would collide.
    weights = scramble(torch.arange(1, rows.shape[1] + 1, device=rows.device))
    return (rows.long() * weights).sum(-1)  # wraps around


def scramble(numbers: Tensor) -> Tensor:
    """64-bit integers as others that look random (splitmix64); equal ones stay equal, on every device."""
    numbers = numbers * -0x61C8864680B583EB
    numbers = (numbers ^ (numbers >> 30 & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    numbers = (numbers ^ (numbers >> 27 & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    return numbers ^ (numbers >> 31 & 0x1FFFFFFFF)


@torch.no_grad()
def choose_negatives(
    per_image: Tensor,
    matches: Tensor,
    hardness: float | None,
    per_text: Tensor | None = None,
    text_matches: Tensor | None = None,
    first: int = 0,
    seed: int | Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One mismatched image for every text and one mismatched text for every image.

    Args:
        per_image: (b, B) similarities of images with all texts, on the scale of logits.
        matches: (b, B) bool, pairs that may not be chosen.
        hardness: Draw in proportion to exp(hardness * similarity): 1 is the paper's choice, 0 is uniform. `None` draws
            nothing and takes the most similar, so that evaluation is deterministic.
        per_text, text_matches: (b, B) the same of texts with all images; the transposes when absent.
        first: Place of the first row among all.
        seed: Of the draws, a number or a tensor () or (1,): each is a function of the seed and of the places of the
            pair, however the rows are spread over processes. Without, torch's random state decides.

    Returns:
        Image index for each text and text index for each image, (b,) each; -1 where everything matches.
    """
    if per_text is None:
        per_text, text_matches = per_image.T, matches.T
    image_seed, text_seed = (None, None) if seed is None else (2 * seed, 2 * seed + 1)
    images = _choose(per_text, text_matches, hardness, image_seed, first)
    return images, _choose(per_image, matches, hardness, text_seed, first)


def _choose(similarity: Tensor, matches: Tensor, hardness: float | None, seed, first: int) -> Tensor:
    # -inf before the softmax: zeroing after it leaves rows that sum to 0 when one similarity dominates.
    # A diverged model's NaN and infinities become numbers: its loss is to say what went wrong, not the draw here.
    logits = at_least_fp32(similarity).nan_to_num(nan=0.0)
    if hardness is not None:
        logits = logits * hardness
    if hardness is not None and seed is not None:
        logits = logits + gumbel_noise(seed, first, logits)  # the largest sum is a draw from their softmax
    logits = logits.masked_fill(matches, float("-inf"))
    possible = ~matches.all(-1)
    if hardness is None or seed is not None:
        chosen = logits.argmax(-1)
    else:
        # A row without any candidate gets an arbitrary one, and is marked below.
        logits = torch.where(possible.unsqueeze(-1), logits, torch.zeros_like(logits))
        chosen = torch.multinomial(logits.softmax(-1), 1).squeeze(-1)
    return torch.where(possible, chosen, torch.full_like(chosen, -1))


def gumbel_noise(seed: int | Tensor, first: int, like: Tensor) -> Tensor:
    """Standard Gumbel draws (b, B) of the rows from `first` on, each a function of (seed, row, column) alone."""
    rows = torch.arange(like.shape[0], device=like.device) + first
    columns = torch.arange(like.shape[1], device=like.device)
    bits = scramble(scramble(scramble(rows * 0 + seed) + rows).unsqueeze(1) + columns)
    # 40 bits: what decides is the small end, where a uniform number of 24 bits would be coarse.
    uniform = ((bits >> 24 & 0xFFFFFFFFFF).to(like.dtype) + 0.5) * 2.0**-40
    return -(-(-uniform.clamp(max=1 - 2.0**-24)).log1p()).log()


def itm_labels(negative_image_index: Tensor, negative_text_index: Tensor) -> Tensor:
    """Labels (3B,) of [true pairs, wrong images, wrong texts]: 1 matches, 0 does not, -100 is not scored.

    Where there was no negative there is nothing to score, and a true pair without any negative is not scored either:
    true pairs alone would teach that everything matches.
    """
    wrong = torch.cat([negative_image_index, negative_text_index])
    true = torch.maximum(negative_image_index, negative_text_index)
    return torch.cat([_where_there(true, 1), _where_there(wrong, 0)])


def _where_there(negatives: Tensor, label: int) -> Tensor:
    return torch.where(negatives < 0, torch.full_like(negatives, -100), torch.full_like(negatives, label))
