"""Statistics of codebook use, from how often each code was chosen.

Shapes: K codes of a book, ΣK those of all books.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .losses_cbvila import at_least_fp32


@torch.no_grad()
def codebook_statistics(counts: Tensor, book_sizes: Sequence[int] | None = None) -> dict[str, Tensor]:
    """Computes statistics of codebook use over a set of tokens.

    Args:
        counts: (ΣK,) how often each code was chosen, book after book.
        book_sizes: K of each book; one book when absent.

    Returns:
        `usage`, the share of codes chosen at least once; `perplexity`, exp of the entropy of their distribution (at
        most K, and at most the number of tokens); `top_share`, the share of the most frequent code. All are scalars.
        With several books they are means over books, and each book's own follow as `usage_book_1` and so on.
    """
    books = [_statistics(at_least_fp32(book)) for book in counts.split(list(book_sizes or [len(counts)]))]
    if len(books) == 1:
        return books[0]
    means = {name: torch.stack([book[name] for book in books]).mean() for name in books[0]}
    return means | {f"{name}_book_{i}": value for i, book in enumerate(books, 1) for name, value in book.items()}


def _statistics(counts: Tensor) -> dict[str, Tensor]:
    shares = counts / counts.sum().clamp_min(1)
    entropy = -(shares * shares.clamp_min(torch.finfo(shares.dtype).tiny).log()).sum()
    return {"usage": (counts > 0).to(shares.dtype).mean(), "perplexity": entropy.exp(), "top_share": shares.max()}
