"""Hard negatives for image-text matching (Sec. III-C).

Shapes: B pairs of the batch, b local pairs: all B, except in training on several processes.
"""

import torch
from torch import Tensor

from .known_matches_cbvila import scramble
from .losses_cbvila import at_least_fp32


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
