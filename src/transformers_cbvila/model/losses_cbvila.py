"""The loss terms of CB-ViLA, as pure functions of tensors.

Every term is a mean (over tokens and dimensions, over pixels, over labelled tokens), computed in at least fp32. With
nothing to score it is exactly 0 with a gradient of 0, so that an empty mask never results in NaN.

Shapes: B batch, b local rows of the batch, N visual tokens, P pixels of a patch (3 * patch_size ** 2), C code width,
K codes, V vocabulary.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .autocast_cbvila import without_autocast


def at_least_fp32(x: Tensor) -> Tensor:
    """Casts `x` to fp32, unless its dtype is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def equal_parts(values: Tensor, number: int) -> tuple[Tensor, ...]:
    """Splits values (number * B, …) into `number` parts (B, …).

    `chunk` may return fewer parts, so a program exported with it would accept the B of its example only.
    """
    return values.unflatten(0, (number, -1)).unbind(0)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Returns the mean of `values` where `mask` (same shape) is true; 0 if it is true nowhere."""
    weights = mask.to(values.dtype)
    return (values * weights).sum() / weights.sum().clamp_min(1)


def masked_rows(mask: Tensor) -> Tensor:
    """Returns the indices (M,) of the true elements of a flattened mask (B, …), for [`take_rows`].

    Their number depends on the data, so the host waits for the device here. `x[mask]` would wait at each use, and
    again in its backward pass.
    """
    return mask.flatten().nonzero().squeeze(-1)


def take_rows(values: Tensor, rows: Tensor) -> Tensor:
    """Selects rows (M, …) of values (B, N, …) by their indices (M,) among all B * N."""
    return values.flatten(0, 1).index_select(0, rows)


def patchify(pixel_values: Tensor, patch_size: int) -> Tensor:
    """Splits images (B, 3, H, W) into patches (B, N, P), row by row, with channels last within a patch."""
    batch, channels, height, width = pixel_values.shape
    rows, columns = height // patch_size, width // patch_size
    grid = pixel_values.reshape(batch, channels, rows, patch_size, columns, patch_size)
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, patch_size**2 * channels)


def unpatchify(patches: Tensor, patch_size: int, height: int, width: int) -> Tensor:
    """Assembles patches (B, N, P) to images (B, 3, H, W); the inverse of [`patchify`]."""
    batch, rows, columns = patches.shape[0], height // patch_size, width // patch_size
    grid = patches.reshape(batch, rows, columns, patch_size, patch_size, -1)
    return grid.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, height, width)


def patch_moments(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and (unbiased) standard deviation (B, N, 1) of patches (B, N, P), as MAE normalizes by them."""
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return mean, (variance + 1e-6).sqrt()


def pixel_loss(
    predictions: Tensor,
    targets: Tensor,
    mask: Tensor | None = None,
    normalize: bool = False,
    likelihood: str = "gaussian",
    reduction: str = "mean",
    sigma: float | None = None,
) -> Tensor:
    """Computes the first term of Eq. 3, -log p(x | z_q(x), l) up to constants; by default the mean squared error.

    Args:
        predictions: (B, N, P) predicted pixels, normalized as by the image processor.
        targets: (B, N, P) true pixels, from [`patchify`].
        mask: (B, N) bool, the patches to score; all when absent.
        normalize: Whether targets are normalized to zero mean and unit (unbiased) variance per patch, as in MAE.
        likelihood: `"gaussian"` for squared errors, `"laplace"` for absolute ones.
        reduction: `"mean"` over the pixels of a patch, or `"sum_patch"`; then a mean over patches.
        sigma: Scale of the likelihood: squared errors are divided by 2 sigma², absolute ones by sigma; neither when
            absent.
    """
    predictions, targets = at_least_fp32(predictions), at_least_fp32(targets)
    if normalize:
        mean, deviation = patch_moments(targets)
        targets = (targets - mean) / deviation
    errors = predictions - targets
    errors = errors.abs() if likelihood == "laplace" else errors.square()
    if sigma is not None:
        errors = errors / (sigma if likelihood == "laplace" else 2 * sigma**2)
    per_patch = errors.sum(-1) if reduction == "sum_patch" else errors.mean(-1)
    return per_patch.mean() if mask is None else masked_mean(per_patch, mask)


def codebook_loss(latents: Tensor, codes: Tensor) -> Tensor:
    """Computes the second term of Eq. 3, ||sg[v] - c||^2, which moves the codes to the latents, both (…, C)."""
    return F.mse_loss(codes, latents.detach())


def commitment_loss(latents: Tensor, codes: Tensor) -> Tensor:
    """Computes the third term of Eq. 3 without β, ||v - sg[c]||^2, which moves latents to the codes, both (…, C)."""
    return F.mse_loss(latents, codes.detach())


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Computes the mean cross-entropy of logits (M, classes) over labels (M,); -100 is ignored; 0 without labels."""
    total = F.cross_entropy(at_least_fp32(logits), labels, ignore_index=-100, reduction="sum")
    return total / (labels != -100).sum().clamp_min(1)


def matching_scores(itm_logits: Tensor) -> Tensor:
    """Returns the log-odds (…) of a match from logits (…, 2), in at least fp32; they rank pairs as p_itm of Eq. 5.

    The second logit alone, by which ALBEF ranks, may rank pairs differently: an offset common to both logits cancels
    in p_itm only.
    """
    no_match, match = at_least_fp32(itm_logits).unbind(-1)
    return match - no_match


def candidate_ranking_loss(scores: Tensor, labels: Tensor, num_pairs: int) -> tuple[Tensor, Tensor]:
    """Computes the cross-entropy of each pair among itself and its negatives, from scores of matching.

    Each text is ranked against its k negative images, and each image against its k negative texts.

    Args:
        scores: ((1 + 2k) b,) log-odds of b true pairs, k b pairs with negative images and k b with negative texts.
        labels: ((1 + 2k) b,) -100 for missing pairs.
        num_pairs: b.

    Returns:
        The mean over all rankings that have a negative, and which those are, (2, b) bool.
    """
    true = scores[:num_pairs].expand(2, 1, num_pairs)
    missing = (labels[num_pairs:] < 0).view(2, -1, num_pairs)
    negative = scores[num_pairs:].view(2, -1, num_pairs).masked_fill(missing, float("-inf"))
    ranked = ~missing.all(1)
    losses = torch.cat([true, negative], 1).logsumexp(1) - true.squeeze(1)
    return masked_mean(losses, ranked), ranked


def bag_loss(logits: Tensor, indices: Tensor, mask: Tensor) -> Tensor:
    """Computes the cross-entropy of one prediction per image with the codes of its masked patches, in any order.

    If all images have as many masked patches, this is the cross-entropy with the histogram of their codes.

    Args:
        logits: (B, K).
        indices: (B, N) codes.
        mask: (B, N) bool, the patches to score.
    """
    return masked_mean(-at_least_fp32(logits).log_softmax(-1).gather(1, indices), mask)


def books_loss(logits: Tensor, labels: Tensor, book_sizes: Sequence[int]) -> Tensor:
    """Computes the mean cross-entropy of logits (M, ΣK) over labels (M,), or (M, R) with several books."""
    books = zip(logits.split(list(book_sizes), dim=-1), by_book(labels, book_sizes), strict=True)
    losses = [classification_loss(scores, codes) for scores, codes in books]
    return losses[0] if len(losses) == 1 else torch.stack(losses).mean()


def books_bag_loss(logits: Tensor, indices: Tensor, mask: Tensor, book_sizes: Sequence[int]) -> Tensor:
    """Computes the mean over books of [`bag_loss`], from logits (B, ΣK) and indices (B, N) or (B, N, R)."""
    books = zip(logits.split(list(book_sizes), dim=-1), by_book(indices, book_sizes), strict=True)
    losses = [bag_loss(scores, codes, mask) for scores, codes in books]
    return losses[0] if len(losses) == 1 else torch.stack(losses).mean()


def likeliest_codes(logits: Tensor, book_sizes: Sequence[int]) -> Tensor:
    """Returns the code indices (…), or (…, R) with several books, of the highest logits (…, ΣK) in each book."""
    best = [scores.argmax(-1) for scores in logits.split(list(book_sizes), dim=-1)]
    return best[0] if len(best) == 1 else torch.stack(best, dim=-1)


def by_book(indices: Tensor, book_sizes: Sequence[int]) -> tuple[Tensor, ...]:
    """Splits indices (…), or (…, R) with several books, into one tensor (…) per book."""
    return (indices,) if len(book_sizes) == 1 else indices.unbind(-1)


def itc_loss(
    per_image: Tensor,
    matches: Tensor,
    per_text: Tensor | None = None,
    text_matches: Tensor | None = None,
    first: int = 0,
) -> Tensor:
    """Computes the image-text contrastive loss over the batch, the mean of both directions.

    Args:
        per_image: (b, B) similarities of images with all texts, divided by the temperature.
        matches: (b, B) bool, whether the text is known to match the image. Known matches other than the image's own
            text are neither positives nor negatives: the softmax leaves them out.
        per_text: (b, B) the similarities of texts with all images; the transpose of `per_image` by default.
        text_matches: (b, B) bool, the matches of texts with all images; given together with `per_text`.
        first: Column of the first row's own pair; those of the other rows follow.
    """
    if per_text is None:
        per_text, text_matches = per_image.T, matches.T
    return (_one_direction(per_image, matches, first) + _one_direction(per_text, text_matches, first)) / 2


def _one_direction(logits: Tensor, matches: Tensor, first: int) -> Tensor:
    """Computes the cross-entropy of rows (b, B) whose targets are the columns from `first` on."""
    targets = torch.arange(logits.shape[0], device=logits.device) + first
    others = matches & (targets.unsqueeze(1) != torch.arange(logits.shape[1], device=logits.device))
    return F.cross_entropy(at_least_fp32(logits).masked_fill(others, float("-inf")), targets)


@without_autocast
def similarities(one: Tensor, other: Tensor) -> Tensor:
    """Returns the products (M, n) of embeddings (M, E) and (n, E), in at least fp32."""
    return at_least_fp32(one) @ at_least_fp32(other).T


def known_match_loss(logits: Tensor, matches: Tensor) -> Tensor:
    """Computes the mean cross-entropy of logits (M, n) with uniform targets over the known matches (M, n) bool."""
    logits = at_least_fp32(logits)
    known = matches.to(logits.dtype)
    return soft_cross_entropy(logits, known / known.sum(-1, keepdim=True).clamp_min(1))


def distilled_loss(loss: Tensor, logits: Tensor, teacher_logits: Tensor | None, alpha: float) -> Tensor:
    """Mixes a loss with the cross-entropy of logits with a teacher's soft targets (ALBEF, Eq. 6 and 7).

    That is (1 - alpha) · loss + alpha · cross-entropy.

    Args:
        loss: (), the mean loss of `logits` with the hard targets.
        logits: (M, n).
        teacher_logits: (M, n) logits of the teacher, without gradient; `None` returns `loss` unchanged.
        alpha: Weight of the soft targets, from 0 to 1.

    Raises:
        ValueError: If the teacher's logits have another shape.
    """
    if teacher_logits is None:
        return loss
    if teacher_logits.shape != logits.shape:
        raise ValueError(
            f"A teacher's logits have shape {tuple(teacher_logits.shape)}; they must be {tuple(logits.shape)}."
        )
    soft_targets = at_least_fp32(teacher_logits.detach()).softmax(-1)
    return (1 - alpha) * loss + alpha * soft_cross_entropy(logits, soft_targets)


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Computes the mean over rows of -Σ q log softmax(logits), for targets q; 0 without rows."""
    logits = at_least_fp32(logits)
    return F.cross_entropy(logits, targets.to(logits.dtype), reduction="sum") / max(1, logits.shape[0])


def answer_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None, label_smoothing: float = 0.0) -> Tensor:
    """Computes the negative log-likelihood of whole answers: a sum over tokens, and a weighted mean over answers.

    If the weights of each question's answers sum to 1, this is ALBEF's loss per question.

    Args:
        logits: (B, A, V); position t predicts token t of the answer.
        labels: (B, A), padded with -100.
        weights: (B,) non-negative; equal by default.
        label_smoothing: Part of the target distribution that is uniform over the vocabulary.
    """
    by_class = at_least_fp32(logits).transpose(1, 2)
    per_token = F.cross_entropy(by_class, labels, ignore_index=-100, reduction="none", label_smoothing=label_smoothing)
    per_answer = per_token.sum(-1)
    if weights is None:
        return per_answer.mean()
    weights = weights.to(per_answer.dtype)
    return (per_answer * weights).sum() / weights.sum().clamp_min(torch.finfo(weights.dtype).tiny)


def next_token_loss(logits: Tensor, labels: Tensor, num_items: Tensor | int | None = None) -> Tensor:
    """Computes the mean cross-entropy of labelled tokens, each predicted at the position before it.

    Args:
        logits: (B, T, V); position t predicts token t + 1.
        labels: (B, T), -100 where a token is not labelled.
        num_items: Number of labelled tokens that the mean is over, of several batches or processes; by default those
            of `labels`.
    """
    predicted, targets = at_least_fp32(logits[:, :-1]).flatten(0, 1), labels[:, 1:].flatten()
    total = F.cross_entropy(predicted, targets, ignore_index=-100, reduction="sum")
    return total / ((targets != -100).sum().clamp_min(1) if num_items is None else num_items)
