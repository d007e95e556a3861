"""A linear probe: how well ridge regression predicts labels from features of images that it has not seen.

Shapes: M images, F features, C labels.
"""

import torch
from torch import Tensor

_FOLDS = 5
_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)  # of squared weights, times the mean square of features


def probe_hits(features: Tensor, labels: Tensor, exclusive: bool, seed: int = 0) -> tuple[Tensor, float]:
    """Returns how well the labels of each image are predicted by a probe that was fitted to other images.

    Args:
        features: (M, F).
        labels: (M, C) 1 where an image has a label.
        exclusive: Whether every image has one label, of which the likeliest is predicted; else the presence of each
            is.
        seed: Seed of the five folds.

    Returns:
        (M,) the share of each image's labels that are predicted correctly (0 or 1 if exclusive), and the mean of
        always predicting what is more frequent.
    """
    predicted = torch.empty_like(labels)
    for fold in torch.randperm(len(features), generator=torch.Generator().manual_seed(seed)).chunk(_FOLDS):
        known = torch.ones(len(features), dtype=torch.bool)
        known[fold] = False
        predicted[fold] = _ridge(features[known], labels[known], features[fold])
    shares = labels.mean(0)
    if exclusive:
        return (predicted.argmax(1) == labels.argmax(1)).double(), float(shares.max())
    hits = ((predicted > 0.5) == (labels > 0.5)).double().mean(1)
    return hits, float(torch.maximum(shares, 1 - shares).mean())


def _ridge(known: Tensor, labels: Tensor, new: Tensor) -> Tensor:
    """Predicts labels of new images, with the penalty of least leave-one-out error, which has a closed form."""
    center, mean = known.mean(0), labels.mean(0)
    left, scales, right = torch.linalg.svd(known - center, full_matrices=False)
    projected, energy = left.T @ (labels - mean), scales.square()
    fits = []
    for penalty in _PENALTIES:
        kept = energy / (energy + penalty * energy.sum() / len(known)).clamp_min(1e-12)
        residuals = labels - mean - left @ (kept.unsqueeze(1) * projected)
        influence = (left.square() * kept).sum(1, keepdim=True) + 1 / len(known)
        fits.append((float((residuals / (1 - influence).clamp_min(1e-6)).square().mean()), kept))
    kept = min(fits, key=lambda fit: fit[0])[1]
    weights = right.T @ ((kept / scales.clamp_min(1e-12)).unsqueeze(1) * projected)
    return (new - center) @ weights + mean
