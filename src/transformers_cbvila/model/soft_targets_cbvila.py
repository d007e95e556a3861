"""Soft targets of the contrastive loss: pairs count as matches the more, the more alike they are within each modality.

Not in the paper. Without them every other pair of the batch is equally wrong.

Shapes: b local pairs, n pairs that they are compared with, E projection size.
"""

import torch
from torch import Tensor

from .losses_cbvila import similarities

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
    return (_similarity_within(own, others) / temperature).softmax(-1)


def blog_targets(embeds: Embeds, temperature: Tensor | float) -> tuple[Tensor, Tensor]:
    """Computes soft targets as a widely read snippet has them, flaws included.

    Those of texts are softmax((I Iᵀ + T Tᵀ) / 2 · temperature), and those of images the transpose. The temperature
    multiplies where it should divide: of embeddings of unit length, with a temperature of 0.07, all targets are nearly
    equal, so that nothing tells a pair from another. The transpose's rows do not sum to 1, and gradient flows into the
    targets. Use them to compare with results of that snippet only.

    Args:
        embeds: (B, E) image and (B, E) text embeddings of all processes.
        temperature: Temperature of the similarities.

    Returns:
        (B, B) targets of images and (B, B) targets of texts.
    """
    of_texts = (_similarity_within(embeds, embeds) * temperature).softmax(-1)
    return of_texts.T, of_texts


def _similarity_within(own: Embeds, others: Embeds) -> Tensor:
    """Returns the mean similarity (b, n) of pairs to others, images with images and texts with texts."""
    return (similarities(own[0], others[0]) + similarities(own[1], others[1])) / 2
