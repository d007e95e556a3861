"""Usage and perplexity of a codebook, as a pure function of code indices."""

from collections.abc import Iterable, Sequence

import torch

from transformers_cbvila.model.codebook_statistics_cbvila import codebook_statistics
from transformers_cbvila.model.nearest_codes_cbvila import count_codes


def codebook_use(indices: Iterable[Sequence[int]], codebook_size: int) -> dict[str, float]:
    """Returns usage, perplexity and the share of the most frequent code, as in the training log.

    Args:
        indices: The code indices of each image; images may have different numbers of patches.
        codebook_size: Number of codes.

    Returns:
        `usage`, `perplexity` (exp of the entropy; at most the number of codes, and of patches) and `top_share`.

    Raises:
        ValueError: If there are no codes, or one is outside the codebook.
    """
    codes = torch.tensor([code for image in indices for code in image], dtype=torch.long)
    if codes.numel() == 0:
        raise ValueError("there are no codes to count; pass the codebook_indices of at least one image")
    outside = codes[(codes < 0) | (codes >= codebook_size)]
    if outside.numel():
        raise ValueError(f"code {int(outside[0])} is not in the codebook, which has 0 to {codebook_size - 1}")
    statistics = codebook_statistics(count_codes(codes, codebook_size).double())
    return {name: float(value) for name, value in statistics.items()}
