"""How varied the codes of a codebook are, as a pure function of the codes that images were given."""

from collections.abc import Iterable, Sequence

import torch

from transformers_cbvila.model.codebook_statistics_cbvila import codebook_statistics
from transformers_cbvila.model.nearest_codes_cbvila import count_codes


def codebook_use(indices: Iterable[Sequence[int]], codebook_size: int) -> dict[str, float]:
    """Usage, perplexity and the share of the most frequent code, as in the training log.

    Args:
        indices: the codes of each image; images may have different numbers of patches.
        codebook_size: number of codes.

    Returns:
        `usage`, `perplexity` (exp of the entropy; at most the number of codes, and of patches) and `top_share`.

    Raises:
        ValueError: there is no code, or one that the codebook does not have.
    """
    codes = torch.tensor([code for image in indices for code in image], dtype=torch.long)
    if codes.numel() == 0:
        raise ValueError("there are no codes to count; pass the codebook_indices of at least one image")
    outside = codes[(codes < 0) | (codes >= codebook_size)]
    if outside.numel():
        raise ValueError(f"code {int(outside[0])} is none of the codebook's, 0 to {codebook_size - 1}")
    statistics = codebook_statistics(count_codes(codes, codebook_size).double())
    return {name: float(value) for name, value in statistics.items()}
