"""Soft targets of the contrastive loss: pairs count as matches the more, the more alike they are within each modality.

Not in the paper. Without them every other pair of the batch is equally wrong.

Shapes: b local pairs, n pairs that they are compared with, E projection size.
"""

import torch
from torch import Tensor

from .autocast_cbvila import without_autocast
from .losses_cbvila import at_least_fp32, soft_cross_entropy

Embeds = tuple[Tensor, Tensor]


@torch.no_grad()
def soft_targets(own: Embeds, others: Embeds, temperature: float) -> Tensor:
    """Computes softmax((I Iᵀ + T Tᵀ) / 2 / temperature), the targets of both directions, without gradient.

    The mean of both similarities is symmetric, so that images and texts have the same targets. They become one-hot as
    the temperature goes to 0, except that equal pairs share theirs.

    Args:
        own: (b, E) image and (b, E) text embeddings of unit length.
        others: (n, E) image and (n, E) text embeddings of the pairs to compare with, the own ones among them.
        temperature: Temperature of the targets, above 0; it is not the one of the similarities.

    Returns:
        (b, n) targets; each row sums to 1.
    """
    return (_similarity_within(own[0], own[1], others) / temperature).softmax(-1)


def blog_itc_loss(
    logits: Tensor, embeds: Embeds, temperature: Tensor | float, first: int = 0, count: int | None = None
) -> Tensor:
    """Computes the contrastive loss with soft targets as a widely read snippet has it, flaws included.

    Its targets are softmax((I Iᵀ + T Tᵀ) / 2 · temperature), rows for texts, and the transpose for images. The
    temperature multiplies where it should divide: of embeddings of unit length, with a temperature of 0.07, all
    targets are nearly equal, so that nothing tells a pair from another. The transpose's rows do not sum to 1, and
    gradient flows into the targets. Use it to compare with results of that snippet only.

    Args:
        logits: (B, B) similarities of images (rows) and texts of all processes over the temperature.
        embeds: (B, E) image and (B, E) text embeddings of all processes.
        temperature: Temperature of the similarities.
        first: Index of the first local pair.
        count: Number of local pairs, over which the loss is averaged; all by default.
    """
    targets = (_similarity_within(embeds[0], embeds[1], embeds) * temperature).softmax(-1)
    count = len(logits) if count is None else count
    per_text, of_texts, per_image, of_images = (
        rows.narrow(0, first, count) for rows in (logits.T, targets, logits, targets.T)
    )
    return (soft_cross_entropy(per_text, of_texts) + soft_cross_entropy(per_image, of_images)) / 2


@without_autocast
def _similarity_within(images: Tensor, texts: Tensor, others: Embeds) -> Tensor:
    """Returns the mean similarity (b, n) of pairs to others, images with images and texts with texts."""
    of_images = at_least_fp32(images) @ at_least_fp32(others[0]).T
    return (of_images + at_least_fp32(texts) @ at_least_fp32(others[1]).T) / 2
