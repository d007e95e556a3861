"""Whether codes go with words: purity and mutual information, beside shuffled words.

Shapes: M images, K codes, W words.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .intervals import jackknife_interval

_SHUFFLES = 19  # the highest is exceeded by chance once in 20 times
_FOLDS = 20


def code_purity(together: Tensor, counts: Tensor) -> float:
    """Returns the share of patches whose image has the word that images with their code have most often.

    Args:
        together: (K, W) number of patches with a code in images with a word.
        counts: (K,) number of patches with a code.

    Returns:
        1 if every code has a word that all its images have. With one word for each image, or each patch, it is the
        purity of clusterings.
    """
    return float(together.amax(1).sum() / counts.sum())


def mutual_information(together: Tensor) -> float:
    """Returns the mutual information, in nats, of a joint distribution (K, W), which need not add up to 1."""
    joint = together.clamp_min(0) / together.clamp_min(0).sum()
    independent = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    ratios = torch.where(joint > 0, joint / independent, 1.0)
    return float((joint * ratios.log()).sum())


def measure_code_meaning(histograms: Tensor, presence: Tensor, seed: int = 0) -> dict[str, float]:
    """Measures how codes go with the words of images; images without a word are left out.

    Args:
        histograms: (M, K) how often an image has a code.
        presence: (M, W) 1 where an image has a word.
        seed: Seed of shuffles and of the folds of intervals.

    Returns:
        `code_purity`, and `code_word_mutual_information` in nats: of the code of a random patch and a random word of
        its image, minus its mean with shuffled words, which corrects the bias of few images. Each has `_low` and
        `_high` (95 % jackknife interval over images) and `_floor`, the highest of 19 shuffles of words over images
        (for mutual information, after the same correction). Empty with fewer than two images that have words.
    """
    chosen = presence.any(1)
    histograms, presence = histograms[chosen], presence[chosen]
    if len(histograms) < 2:
        return {}
    histograms = histograms[:, histograms.any(0)]
    shares, weights = (rows / rows.sum(1, keepdim=True) for rows in (histograms, presence))
    purity, shuffled, interval = _with_shuffled(histograms, presence, code_purity, seed)
    information, by_chance, bounds = _with_shuffled(shares, weights, lambda joint, _: mutual_information(joint), seed)
    bias = float(np.mean(by_chance))
    return {
        "code_purity": purity,
        "code_purity_floor": max(shuffled),
        "code_purity_low": max(0.0, interval[0]),
        "code_purity_high": min(1.0, interval[1]),
        "code_word_mutual_information": information - bias,
        "code_word_mutual_information_floor": max(by_chance) - bias,
        "code_word_mutual_information_low": bounds[0] - bias,
        "code_word_mutual_information_high": bounds[1] - bias,
    }


def _with_shuffled(
    codes: Tensor, words: Tensor, statistic: Callable[[Tensor, Tensor], float], seed: int
) -> tuple[float, list[float], tuple[float, float]]:
    """Returns a statistic of codes (M, K) and words (M, W), those of shuffled words, and an interval."""
    generator = torch.Generator().manual_seed(seed)
    together, counts = codes.T @ words, codes.sum(0)
    value = statistic(together, counts)
    shuffled = [
        statistic(codes.T @ words[torch.randperm(len(words), generator=generator)], counts) for _ in range(_SHUFFLES)
    ]
    folds = torch.randperm(len(codes), generator=generator).chunk(_FOLDS)
    without = [statistic(together - codes[fold].T @ words[fold], counts - codes[fold].sum(0)) for fold in folds]
    return value, shuffled, jackknife_interval(value, np.array(without))
