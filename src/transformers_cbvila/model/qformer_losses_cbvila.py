"""The losses of a Q-Former's first stage (BLIP-2, Sec. 3.2), as pure functions of tensors.

Shapes: b local pairs, B pairs of all processes, M images, Q queries, n texts, E embedding size, L text tokens, V
vocabulary.
"""

import torch
from torch import Tensor

from .autocast_cbvila import without_autocast
from .losses_cbvila import at_least_fp32, classification_loss

IGNORED = -100


@without_autocast
def query_similarities(queries: Tensor, texts: Tensor) -> Tensor:
    """Returns the similarity (M, n) of images to texts (n, E): that of the most similar query of each image.

    Args:
        queries: (M, Q, E) embeddings of the queries, of unit length.
        texts: (n, E) embeddings of the texts, of unit length.
    """
    products = at_least_fp32(queries).flatten(0, 1) @ at_least_fp32(texts).T
    return products.unflatten(0, queries.shape[:2]).amax(1)


def smoothed_itc_loss(
    per_image: Tensor,
    matches: Tensor,
    per_text: Tensor,
    text_matches: Tensor,
    first: int = 0,
    smoothing: float = 0.1,
) -> Tensor:
    """Computes the contrastive loss with smoothed targets, the mean of both directions; 0 for a single pair.

    Args:
        per_image: (b, B) similarities of images with all texts, divided by the temperature.
        matches: (b, B) bool, whether the text is known to match the image. Known matches other than the image's own
            text are neither positives nor negatives: the softmax leaves them out.
        per_text: (b, B) similarities of texts with all images.
        text_matches: (b, B) bool, the matches of texts with all images.
        first: Column of the first row's own pair; those of the other rows follow.
        smoothing: Part of each target that is uniform over the columns that the softmax has.
    """
    of_images = _smoothed_cross_entropy(per_image, matches, first, smoothing)
    return (of_images + _smoothed_cross_entropy(per_text, text_matches, first, smoothing)) / 2


def _smoothed_cross_entropy(logits: Tensor, matches: Tensor, first: int, smoothing: float) -> Tensor:
    """Computes the cross-entropy of rows (b, B) whose targets are the columns from `first` on."""
    logits = at_least_fp32(logits)
    rows, columns = (torch.arange(size, device=logits.device) for size in logits.shape)
    is_own = (rows + first).unsqueeze(1) == columns
    is_compared = is_own | ~matches
    # Zero after the softmax: a target of 0 times a log-probability of minus infinity is not a number.
    log_shares = logits.masked_fill(~is_compared, float("-inf")).log_softmax(-1).masked_fill(~is_compared, 0.0)
    uniform = is_compared.to(logits.dtype) / is_compared.sum(-1, keepdim=True)
    targets = (1 - smoothing) * is_own.to(logits.dtype) + smoothing * uniform
    return -(targets * log_shares).sum() / max(1, logits.shape[0])


def query_matching_logits(query_logits: Tensor) -> Tensor:
    """Returns the logits (M, 2) of image-text matching: the mean over those of the queries (M, Q, 2)."""
    return at_least_fp32(query_logits).mean(1)


def caption_labels(input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Returns what each text token predicts, the next one, as (b, L - 1); -100 where that is padding."""
    following = input_ids[:, 1:].long()
    return following if attention_mask is None else following.masked_fill(attention_mask[:, 1:] == 0, IGNORED)


def caption_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Computes the mean cross-entropy of image-grounded text generation over labelled tokens; 0 without any.

    Args:
        logits: (b, L, V); position t predicts token t + 1, and the last position nothing.
        labels: (b, L - 1), see [`caption_labels`].
    """
    return classification_loss(logits[:, :-1].flatten(0, 1), labels.flatten())
