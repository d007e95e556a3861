"""Search in which near-duplicates stand for each other: only the most similar one of a group is found.

Shapes: Q queries, G items of a gallery, k results per query, E embedding size.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..model.number_checks_cbvila import check_number

_ROUNDING = 1e-5  # of cosines: those of equal items are 1 up to it


class DistinctItems(NamedTuple):
    """What was found: cosines (Q, k), rows (Q, k), and how many items each stands for beside itself, (Q, k).

    Where a query has fewer than k, they are -inf, -1 and 0.
    """

    cosines: Tensor
    rows: Tensor
    folded: Tensor


def check_fold_duplicates(threshold: float) -> None:
    """Raises a ValueError unless a threshold is a cosine above 0."""
    check_number("fold_duplicates", threshold, above=0)
    if threshold > 1:
        raise ValueError(
            f"fold_duplicates={threshold} is the least cosine of near-duplicates: at most 1, equal items."
        )


def most_distinct(queries: Tensor, gallery: Sequence[Tensor], k: int, threshold: float) -> DistinctItems:
    """Finds the k items that are most similar to each query, with no two of them near-duplicates.

    The most similar item is taken, all that are as similar to it as `threshold` are folded into it, and so on with the
    rest. Each result costs a pass through the gallery.

    Args:
        queries: Embeddings (Q, E).
        gallery: Embeddings (g, E) in blocks, G in all.
        k: How many items to find.
        threshold: Least cosine of an item with another one that stands for it.
    """
    found = [_of_query(query, gallery, k, threshold - _ROUNDING) for query in queries]
    width = max(len(rows) for _, rows, _ in found)
    cosines, rows, folded = zip(*found, strict=True)
    return DistinctItems(_padded(cosines, width, -torch.inf), _padded(rows, width, -1), _padded(folded, width, 0))


def _of_query(query: Tensor, gallery: Sequence[Tensor], k: int, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    cosines, order = _cosines(query, gallery).sort(descending=True, stable=True)
    free = torch.ones(len(order), dtype=torch.bool)
    places, folded = list[int](), list[int]()
    for place, row in enumerate(order.tolist()):
        if len(places) == k:
            break
        if free[row]:
            alike = (_cosines(_embedding(gallery, row), gallery) >= threshold) & free
            alike[row] = True  # whatever rounding makes of its cosine with itself
            free &= ~alike
            places.append(place)
            folded.append(int(alike.sum()) - 1)
    return cosines[places], order[places], torch.tensor(folded)


def _cosines(embedding: Tensor, gallery: Sequence[Tensor]) -> Tensor:
    return torch.cat([block @ embedding for block in gallery])


def _embedding(gallery: Sequence[Tensor], row: int) -> Tensor:
    for block in gallery:
        if row < len(block):
            return block[row]
        row -= len(block)
    raise IndexError(row)


def _padded(rows: Sequence[Tensor], width: int, gap: float) -> Tensor:
    padded = rows[0].new_full((len(rows), width), gap)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row
    return padded
