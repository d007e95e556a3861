"""Searches a gallery for the items that are most similar to each query.

Shapes: Q queries, G items of a gallery, k results per query, E embedding size.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor


def most_similar(
    queries: Sequence[Tensor], gallery: Sequence[Tensor], k: int, chunk: int = 8192
) -> tuple[Tensor, Tensor]:
    """Finds the k (or all G) items of a gallery that are most similar to each query.

    The (Q, G) similarities are never in memory at once. Equally similar items stay in their order, on every device.

    Args:
        queries: Embeddings (q, E) in blocks, Q in all.
        gallery: Embeddings (g, E) in blocks, G in all.
        k: How many items to find.
        chunk: How many items are compared with up to 256 queries at a time.

    Returns:
        Their cosines (Q, k), the highest first, and their rows (Q, k).

    Raises:
        ValueError: If `k` is not positive.
    """
    if k < 1:
        raise ValueError(f"k={k} candidates per query: a shortlist has at least one.")
    found = [_best(part, gallery, k, chunk) for block in queries for part in block.split(256)]
    return torch.cat([cosines for cosines, _ in found]), torch.cat([rows for _, rows in found])


def _best(queries: Tensor, gallery: Sequence[Tensor], k: int, chunk: int) -> tuple[Tensor, Tensor]:
    """Finds the most similar items of one block of queries; a stable sort keeps earlier items ahead of equal ones."""
    cosines, rows, first = queries.new_empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.long), 0
    for part in _parts(gallery, chunk):
        cosines = torch.cat([cosines, queries @ part.T], dim=1)
        new = torch.arange(first, first + len(part)).expand(len(queries), -1)
        cosines, order = cosines.sort(dim=1, descending=True, stable=True)
        cosines, rows = cosines[:, :k], torch.cat([rows, new], dim=1).gather(1, order[:, :k])
        first += len(part)
    return cosines, rows


def _parts(blocks: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Yields rows in parts of about `size`: the blocks of a gallery on disk may be small."""
    waiting, rows = list[Tensor](), 0
    for block in (part for whole in blocks for part in whole.split(size)):
        if waiting and rows + len(block) > size:
            yield torch.cat(waiting)
            waiting, rows = [], 0
        waiting.append(block)
        rows += len(block)
    if waiting:
        yield torch.cat(waiting)
