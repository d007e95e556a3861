"""Retrieval by codes alone: which image belongs to a caption, as far as counts of codes and words tell.

Shapes: M images, K codes, W words.
"""

import torch
from torch import Tensor


def code_retrieval_hits(histograms: Tensor, presence: Tensor, queries: Tensor, seed: int = 0) -> tuple[Tensor, float]:
    """Returns whether the image of each query is ranked first among half of the images; nothing is trained.

    How often words go with codes is counted on the other half. An image is scored by the log ratio of how likely its
    codes make the words of the query, and how frequent these are.

    Args:
        histograms: (M, K) how often an image has a code.
        presence: (M, W) 1 where an image has a word.
        queries: (M, W) 1 where the caption that is asked with has a word.
        seed: Seed of the halves.

    Returns:
        (M,) 1 for a hit, shared by images that are equally good, and the share that chance finds.
    """
    hits, chances = torch.zeros(len(histograms), dtype=torch.float64), []
    halves = torch.randperm(len(histograms), generator=torch.Generator().manual_seed(seed)).chunk(2)
    for gallery, known in (halves, halves[::-1]):
        scores = queries[gallery] @ _log_ratios(histograms[gallery], histograms[known], presence[known]).T
        own = scores.diagonal().unsqueeze(1)
        tolerance = 1e-9 * own.abs().clamp_min(1)
        better, equal = (scores > own + tolerance).sum(1), ((scores - own).abs() <= tolerance).sum(1)
        hits[gallery] = (better == 0).double() / equal
        chances.append(1 / len(gallery))
    return hits, sum(chances) / 2


def _log_ratios(histograms: Tensor, known: Tensor, presence: Tensor) -> Tensor:
    """Returns log ratios (M', W) of how likely words are given the codes of images, and their frequencies."""
    frequencies = presence.mean(0).clamp_min(0.5 / len(presence))
    weight = known.sum(1).mean()  # a rare code counts as if it had been in one more average image
    likely = (known.T @ presence + weight * frequencies) / (known.sum(0).unsqueeze(1) + weight)
    shares = histograms / histograms.sum(1, keepdim=True)
    return ((shares @ likely) / frequencies).log()
