"""Which words go with a code, which codes with a word, and where in images a code occurs.

Shapes: M images, N patches, R books, K codes, W words.
"""

from dataclasses import dataclass

import numpy as np
import torch

from ..metrics.code_counts import code_histograms, word_presence
from .codebook_report import meaningful_words
from .visual_words import VisualWords

_CHUNK = 1000  # images whose histograms are in memory


@dataclass
class CodeWords:
    """How codes and words go together.

    Attributes:
        words: W words of captions and labels.
        together: (K, W) number of patches with a code in images with a word.
        counts: (K,) number of patches with a code.
        frequencies: (W,) share of all patches that are in images with a word.
    """

    words: list[str]
    together: np.ndarray
    counts: np.ndarray
    frequencies: np.ndarray

    def of_code(self, code: int, limit: int = 3) -> list[tuple[str, float, float]]:
        """Returns the words that go with a code more often than with others, the most telling first.

        Returns:
            Of each, the share of the code's patches that are in images with the word, and that of all patches.
        """
        shares = self.together[code] / max(1, self.counts[code])
        return [
            (self.words[word], float(shares[word]), float(self.frequencies[word]))
            for word in _most_telling(shares, self.frequencies, limit)
        ]

    def of_word(self, word: str, limit: int = 8) -> list[tuple[int, float]]:
        """Returns the codes that a word has more often than others, the most telling first.

        Returns:
            Of each, how many times as often patches of images with the word have it as patches of all images.
        """
        with_word = self.together[:, self.words.index(word)]
        shares, expected = with_word / max(1, with_word.sum()), self.counts / max(1, self.counts.sum())
        return [
            (code, float(shares[code] / expected[code])) for code in _most_telling(shares, expected, limit).tolist()
        ]

    def most_telling_words(self, limit: int = 24) -> list[str]:
        """Returns the words that codes tell most about, the most telling first: by their part of the information."""
        joint = self.together / max(1, self.together.sum())
        expected = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
        parts = (joint * np.log(np.where(joint > 0, joint, 1) / np.where(joint > 0, expected, 1))).sum(0)
        return [self.words[word] for word in np.argsort(-parts, kind="stable")[:limit].tolist()]


def count_code_words(found: VisualWords) -> CodeWords:
    """Counts codes and words that occur together in the images of `found`."""
    words, rows = meaningful_words(found.row_words), found.row_words.all
    counts, frequencies = torch.from_numpy(found.counts).double(), torch.zeros(len(words), dtype=torch.float64)
    together = torch.zeros(len(counts), len(words), dtype=torch.float64)
    indices = torch.from_numpy(found.indices.reshape(len(found.indices), -1))
    for start in range(0, len(indices), _CHUNK):
        histograms = code_histograms(indices[start : start + _CHUNK], len(counts))
        presence = word_presence(rows[start : start + _CHUNK], words)
        together += histograms.T @ presence
        frequencies += histograms.sum(1) @ presence / counts.sum()
    return CodeWords(words, together.numpy(), counts.numpy(), frequencies.numpy())


def places_of_code(code: int, found: VisualWords) -> np.ndarray:
    """Returns the share of images that have a code at each place, (rows, columns)."""
    return (found.indices == code).any(axis=2).mean(axis=0).reshape(found.grid)


def _most_telling(shares: np.ndarray, expected: np.ndarray, limit: int) -> np.ndarray:
    """Returns the places of the largest parts of the divergence of shares from those expected, above zero only."""
    ratios = np.where(shares > 0, shares, 1) / np.where((shares > 0) & (expected > 0), expected, 1)
    parts = shares * np.log(ratios)
    order = np.argsort(-parts, kind="stable")[:limit]
    return order[parts[order] > 1e-9]
