"""Known matches, and hard negatives for image-text matching (Sec. III-C).

Shapes: B pairs of the batch, b local pairs: all B, except in training on several processes.
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
    """Chooses a negative image for every text and a negative text for every image.

    Args:
        per_image: (b, B) similarity logits of images with all texts.
        matches: (b, B) bool, pairs that must not be chosen.
        hardness: Negatives are sampled with probability proportional to exp(hardness * similarity): 1 is the paper's
            choice, 0 is uniform. `None` takes the most similar instead, so that evaluation is deterministic.
        per_text: (b, B) the similarities of texts with all images; the transpose of `per_image` by default.
        text_matches: (b, B) bool, the matches of texts with all images; given together with `per_text`.
        first: Index of the first local pair in the batch.
        seed: Random seed, a number or a tensor () or (1,). A sample depends only on the seed and on the indices of
            image and text in the batch, not on how the batch is split over processes. By default torch's random state
            is used.

    Returns:
        An image index for each text and a text index for each image, (b,) each; -1 where everything matches.
    """
    if per_text is None:
        per_text, text_matches = per_image.T, matches.T
    image_seed, text_seed = (None, None) if seed is None else (2 * seed, 2 * seed + 1)
    images = _choose(per_text, text_matches, hardness, image_seed, first)
    return images, _choose(per_image, matches, hardness, text_seed, first)


def _choose(
    similarity: Tensor, matches: Tensor, hardness: float | None, seed: int | Tensor | None, first: int
) -> Tensor:
    """Chooses a column (b,) for each row of similarities (b, B)."""
    # -inf before the softmax: zeroing after it leaves rows that sum to 0 when one similarity dominates.
    # NaN and infinities of a diverged model become finite, so that its loss shows the problem rather than an error.
    logits = at_least_fp32(similarity).nan_to_num(nan=0.0)
    if hardness is not None:
        logits = logits * hardness
    if hardness is not None and seed is not None:
        logits = logits + gumbel_noise(seed, first, logits)  # the argmax is then a sample from their softmax
    logits = logits.masked_fill(matches, float("-inf"))
    possible = ~matches.all(-1)
    if hardness is None or seed is not None:
        chosen = logits.argmax(-1)
    else:
        # A row without candidates gets an arbitrary one, which is set to -1 below.
        logits = torch.where(possible.unsqueeze(-1), logits, torch.zeros_like(logits))
        chosen = torch.multinomial(logits.softmax(-1), 1).squeeze(-1)
    return torch.where(possible, chosen, torch.full_like(chosen, -1))


def gumbel_noise(seed: int | Tensor, first: int, like: Tensor) -> Tensor:
    """Returns standard Gumbel noise (b, B), with rows from `first` on; a value depends on (seed, row, column) only."""
    rows = torch.arange(like.shape[0], device=like.device) + first
    columns = torch.arange(like.shape[1], device=like.device)
    bits = scramble(scramble(scramble(rows * 0 + seed) + rows).unsqueeze(1) + columns)
    # 40 bits: values close to 0 decide the argmax, and 24 uniform bits would be too coarse there.
    uniform = ((bits >> 24 & 0xFFFFFFFFFF).to(like.dtype) + 0.5) * 2.0**-40
    return -(-(-uniform.clamp(max=1 - 2.0**-24)).log1p()).log()


def itm_labels(negative_image_index: Tensor, negative_text_index: Tensor) -> Tensor:
    """Returns labels (3b,) of true pairs, negative images and negative texts: 1 matches, 0 does not, -100 is ignored.

    Missing negatives are ignored, and so is a true pair without any negative: true pairs alone would teach the model
    that everything matches.
    """
    negative = torch.cat([negative_image_index, negative_text_index])
    true = torch.maximum(negative_image_index, negative_text_index)
    return torch.cat([_label_valid(true, 1), _label_valid(negative, 0)])


def _label_valid(negatives: Tensor, label: int) -> Tensor:
    return torch.where(negatives < 0, torch.full_like(negatives, -100), torch.full_like(negatives, label))
