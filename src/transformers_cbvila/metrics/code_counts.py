"""Codes and words of images as matrices.

Shapes: M images, N patches, K codes, W words.
"""

from collections import Counter
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

_FEWEST_IMAGES = 2  # of a word: of one image, codes tell nothing about another
_LARGEST_SHARE = 0.5  # of images with a word: "a" and "the" say nothing about an image
_MOST_WORDS = 256


def code_histograms(indices: Tensor, num_codes: int) -> Tensor:
    """Counts how often each image has each code, (M, K) in fp64, from indices (M, N)."""
    counts = torch.zeros(len(indices), num_codes, dtype=torch.float64)
    return counts.scatter_add_(1, indices.long(), torch.ones_like(indices, dtype=torch.float64))


def frequent_words(words: Sequence[Collection[str]], largest_share: float = _LARGEST_SHARE) -> list[str]:
    """Returns the most frequent words of images, at most 256, in alphabetical order, without those of one image.

    Args:
        words: The words of each image.
        largest_share: Words of a larger share of the images are left out.
    """
    counts = Counter(word for own in words for word in set(own))
    kept = [(-count, word) for word, count in counts.items() if _FEWEST_IMAGES <= count <= largest_share * len(words)]
    return sorted(word for _, word in sorted(kept)[:_MOST_WORDS])


def word_presence(words: Sequence[Collection[str]], vocabulary: Sequence[str]) -> Tensor:
    """Returns 1 where an image has a word of the vocabulary and 0 elsewhere, (M, W) in fp64."""
    places = {word: place for place, word in enumerate(vocabulary)}
    presence = torch.zeros(len(words), len(vocabulary), dtype=torch.float64)
    for row, own in enumerate(words):
        presence[row, [places[word] for word in own if word in places]] = 1
    return presence
