"""Optimal transport between features and prototypes, without gradient: IPOT and Sinkhorn, in log space.

Both divide the mass of n features evenly over K prototypes. IPOT (arXiv 1802.04307) goes to the exact plan of least
cost, whose rows are nearly one-hot; a few steps of Sinkhorn (as in SwAV, arXiv 2006.09882) give a smooth plan. All
processes solve for the same rows, so that nothing is exchanged.

Shapes: n features, K prototypes.
"""

import math

import torch
from torch import Tensor

from .losses_cbvila import at_least_fp32


@torch.no_grad()
def ipot(similarity: Tensor, beta: float = 0.5, steps: int = 50) -> Tensor:
    """Returns the plan (n, K) of an inexact proximal point method; rows have about 1 / n, columns exactly 1 / K.

    Args:
        similarity: (n, K) cosine similarities; the cost is 1 - similarity.
        beta: Step size of the proximal point method, above 0.
        steps: Number of steps.
    """
    cost = 1 - at_least_fp32(similarity)
    rows, columns = cost.shape
    kernel, plan = -cost / beta, torch.zeros_like(cost)
    scale = cost.new_full((columns,), -math.log(columns))
    for _ in range(steps):
        plan = kernel + plan
        row_scale = -math.log(rows) - (plan + scale).logsumexp(1)
        scale = -math.log(columns) - (plan + row_scale.unsqueeze(1)).logsumexp(0)
        plan = row_scale.unsqueeze(1) + plan + scale
    return plan.exp()


@torch.no_grad()
def sinkhorn(similarity: Tensor, epsilon: float = 0.05, steps: int = 3) -> Tensor:
    """Returns the plan (n, K) of an entropic problem; rows have exactly 1 / n, columns about 1 / K.

    Args:
        similarity: (n, K) cosine similarities.
        epsilon: Weight of the entropy, above 0: the smaller, the nearer to one-hot.
        steps: Number of times that columns and rows are normalized.
    """
    plan = at_least_fp32(similarity) / epsilon
    rows, columns = plan.shape
    for _ in range(steps):
        plan = plan - plan.logsumexp(0) - math.log(columns)
        plan = plan - plan.logsumexp(1, keepdim=True) - math.log(rows)
    return plan.exp()


def as_targets(plan: Tensor) -> Tensor:
    """Returns the rows (n, K) of a plan as distributions."""
    return plan / plan.sum(1, keepdim=True)
