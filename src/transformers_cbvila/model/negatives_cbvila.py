"""Hard negatives for image-text matching (Sec. III-C).

Shapes: B pairs of the batch, b local pairs: all B, except in training on several processes; k negatives.
"""

import torch
import torch.nn.functional as F
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
    count: int = 1,
) -> tuple[Tensor, Tensor]:
    """Chooses negative images for every text and negative texts for every image, without repetition.

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
        count: Number k of negatives of each text and of each image.

    Returns:
        Image indices for each text and text indices for each image, (b, k) each; -1 where no other is left.
    """
    if per_text is None:
        per_text, text_matches = per_image.T, matches.T
    image_seed, text_seed = (None, None) if seed is None else (2 * seed, 2 * seed + 1)
    images = _choose(per_text, text_matches, hardness, image_seed, first, count)
    return images, _choose(per_image, matches, hardness, text_seed, first, count)


def _choose(
    similarity: Tensor, matches: Tensor, hardness: float | None, seed: int | Tensor | None, first: int, count: int
) -> Tensor:
    """Chooses columns (b, k) for each row of similarities (b, B)."""
    # -inf before the choice: zeroing probabilities leaves rows that sum to 0 when one similarity dominates.
    # NaN and infinities of a diverged model become finite, so that its loss shows the problem rather than an error.
    logits = at_least_fp32(similarity).nan_to_num(nan=0.0)
    if hardness is not None:  # the largest of logits with Gumbel noise are a sample from their softmax
        noise = -torch.empty_like(logits).exponential_().log() if seed is None else gumbel_noise(seed, first, logits)
        logits = logits * hardness + noise
    logits = logits.masked_fill(matches, float("-inf"))
    best = logits.topk(min(count, logits.shape[1]), dim=-1)
    chosen = torch.where(best.values > float("-inf"), best.indices, torch.full_like(best.indices, -1))
    return F.pad(chosen, (0, count - chosen.shape[1]), value=-1)


def gumbel_noise(seed: int | Tensor, first: int, like: Tensor) -> Tensor:
    """Returns standard Gumbel noise (b, B), with rows from `first` on; a value depends on (seed, row, column) only."""
    rows = torch.arange(like.shape[0], device=like.device) + first
    columns = torch.arange(like.shape[1], device=like.device)
    bits = scramble(scramble(scramble(rows * 0 + seed) + rows).unsqueeze(1) + columns)
    # 40 bits: values close to 0 decide the argmax, and 24 uniform bits would be too coarse there.
    uniform = ((bits >> 24 & 0xFFFFFFFFFF).to(like.dtype) + 0.5) * 2.0**-40
    return -(-(-uniform.clamp(max=1 - 2.0**-24)).log1p()).log()


def itm_labels(negative_image_index: Tensor, negative_text_index: Tensor) -> Tensor:
    """Returns labels ((1 + 2k) b,) of true pairs, negative images and negative texts: 1 matches, 0 not, -100 ignored.

    Missing negatives are ignored, and so is a true pair without any negative: true pairs alone would teach the model
    that everything matches. The order is that of [`itm_batch`].
    """
    true = torch.maximum(negative_image_index, negative_text_index).amax(1)
    negative = torch.cat([negative_image_index.T.flatten(), negative_text_index.T.flatten()])
    return torch.cat([_label_valid(true, 1), _label_valid(negative, 0)])


def _label_valid(negatives: Tensor, label: int) -> Tensor:
    return torch.where(negatives < 0, torch.full_like(negatives, -100), torch.full_like(negatives, label))
