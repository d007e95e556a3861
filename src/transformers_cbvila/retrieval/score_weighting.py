"""How much similarity counts beside matching when both order candidates, fitted where the truth is known.

Shapes: Q queries, k candidates of each.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

WEIGHTS = (0.0, *(2.0 ** (power / 2) for power in range(-8, 9)))  # 0, 1/16 … 16


class JudgedCandidates(NamedTuple):
    """Candidates whose truth is known.

    Args:
        scores: (Q, k) log-odds of matching.
        similarities: (Q, k) cosines over the temperature.
        relevant: (Q, k) bool.
    """

    scores: Tensor
    similarities: Tensor
    relevant: Tensor

    def of(self, queries: Tensor) -> "JudgedCandidates":
        """Returns the candidates of some queries, by a mask (Q,)."""
        return JudgedCandidates(*(tensor[queries] for tensor in self))


def fitted_similarity_weight(candidates: Sequence[JudgedCandidates]) -> float:
    """Returns the weight of `WEIGHTS` with the highest mean reciprocal rank by matching + weight x similarity.

    Args:
        candidates: Of one or more kinds of queries, such as images and texts, which count alike.
    """

    def quality(weight: float) -> float:
        return sum(float(reciprocal_ranks(kind, weight).mean()) for kind in candidates)

    return max(WEIGHTS, key=quality)  # the smallest of equally good ones


def reciprocal_ranks(candidates: JudgedCandidates, weight: float) -> Tensor:
    """Returns 1 / rank (Q,) of the best relevant candidate, last among equal scores; 0 where none is relevant."""
    scores = candidates.scores.double() + weight * candidates.similarities.double()
    best = scores.masked_fill(~candidates.relevant, -torch.inf).amax(1, keepdim=True)
    before = ((scores >= best) & ~candidates.relevant).sum(1)
    return torch.where(candidates.relevant.any(1), 1 / (1 + before.double()), 0.0)


def cross_fitted_weights(candidates: Sequence[JudgedCandidates]) -> list[Tensor]:
    """Returns a weight (Q, 1) for each query, fitted on the half of the queries that it is not in.

    Recall by these weights is what a weight fitted on other data reaches: no query had a part in its own.
    """
    halves = [torch.arange(len(kind.scores)) % 2 == 0 for kind in candidates]
    of_even = fitted_similarity_weight([kind.of(~even) for kind, even in zip(candidates, halves, strict=True)])
    of_odd = fitted_similarity_weight([kind.of(even) for kind, even in zip(candidates, halves, strict=True)])
    return [torch.where(even, of_even, of_odd).unsqueeze(1) for even in halves]
