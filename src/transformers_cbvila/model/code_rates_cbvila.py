"""Codebooks of another size, made from trained codes without further training: DKM, IKM, and the most used codes.

DKM (differentiable k-means) makes fewer codes and IKM (inverse k-means) more; both are from RAQ (arXiv 2405.14222).

Shapes: K given codes, K' new codes, C code width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .kmeans_cbvila import kmeans_plus_plus
from .losses_cbvila import at_least_fp32

_EMPTY = 1e-12  # sum of assignments below which a centre stays where it is
_KERNEL_SCALES = (0.2, 0.5, 0.9, 1.3)
# Standard deviations of the first codes of IKM: of a second attempt where the first one ends above _GOOD_ENOUGH.
_STARTS = (0.125, 0.2)
_GOOD_ENOUGH = 0.01
_LEARNING_RATE = 5e-3
_WEIGHT_DECAY, _WEIGHT_DECAY_OF_MANY, _MANY = 0.01, 0.05, 1000


@torch.no_grad()
def dkm(
    codes: Tensor,
    number: int,
    generator: torch.Generator | None = None,
    start: Tensor | None = None,
    temperature: float = 0.01,
    tolerance: float = 1e-8,
    iterations: int = 200,
    unit_norm: bool = False,
) -> Tensor:
    """Makes fewer codes by differentiable k-means, whose assignments are a softmax of negative distances.

    Args:
        codes: (K, C).
        number: K', at most K. With K the codes are returned as they are.
        generator: Random generator, on the CPU, for the start by k-means++.
        start: (K', C) centres to start from instead. (The authors start from the first codes, which may end in a poor
            optimum.)
        temperature: Temperature of the softmax over distances.
        tolerance: Mean absolute change of the centres at which the iteration ends.
        iterations: Largest number of iterations.
        unit_norm: Whether to scale the new codes to length 1.

    Raises:
        ValueError: If `number` is not between 1 and K.
    """
    if not 1 <= number <= len(codes):
        raise ValueError(f"DKM makes 1 to {len(codes)} codes of {len(codes)}, not {number}; IKM makes more.")
    codes = at_least_fp32(codes)
    if number == len(codes):
        return codes
    if start is None:
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        start = kmeans_plus_plus(codes, number, generator)
    centres = start.to(codes)
    for _ in range(iterations):
        shares = (-torch.cdist(codes, centres, compute_mode="donot_use_mm_for_euclid_dist") / temperature).softmax(-1)
        totals = shares.sum(0).unsqueeze(-1)
        moved = torch.where(totals < _EMPTY, centres, shares.T @ codes / totals.clamp_min(_EMPTY))
        change = (moved - centres).abs().mean()
        centres = moved
        if change < tolerance:
            break
    return F.normalize(centres, dim=-1) if unit_norm else centres


def ikm(
    codes: Tensor,
    number: int,
    generator: torch.Generator | None = None,
    iterations: int = 5000,
    unit_norm: bool = False,
) -> Tensor:
    """Makes more codes by inverse k-means: codes whose distribution is that of the given ones.

    It minimizes the maximum mean discrepancy with AdamW from random codes, and keeps the best; where the result is
    poor it starts once more, from longer codes. Time grows with the square of the number of codes.

    Args:
        codes: (K, C).
        number: K', above K.
        generator: Random generator, on the CPU.
        iterations: Number of steps of each attempt.
        unit_norm: Whether to scale the new codes to length 1.

    Raises:
        ValueError: If `number` is not above K.
    """
    if number <= len(codes):
        raise ValueError(f"IKM makes more than {len(codes)} codes of {len(codes)}, not {number}; DKM makes fewer.")
    codes = at_least_fp32(codes.detach())
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    best, least = codes, float("inf")
    for deviation in _STARTS:
        start = torch.randn(number, codes.shape[1], generator=generator).to(codes) * deviation
        found, discrepancy = _match_distribution(start, codes, iterations)
        if discrepancy < least:
            best, least = found, discrepancy
        if least <= _GOOD_ENOUGH:
            break
    return F.normalize(best, dim=-1) if unit_norm else best


def _match_distribution(start: Tensor, codes: Tensor, iterations: int) -> tuple[Tensor, float]:
    """Moves codes (K', C) towards the distribution of codes (K, C); returns the best found and its discrepancy."""
    new = start.clone().requires_grad_()
    decay = _WEIGHT_DECAY_OF_MANY if len(start) > _MANY else _WEIGHT_DECAY
    optimizer = torch.optim.AdamW([new], lr=_LEARNING_RATE, weight_decay=decay)
    best, least = start, float("inf")
    with torch.enable_grad():
        for _ in range(iterations):
            loss = mean_discrepancy(new, codes)
            if (value := float(loss.detach())) < least:
                best, least = new.detach().clone(), value
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return best, least


def mean_discrepancy(first: Tensor, second: Tensor) -> Tensor:
    """Returns the squared maximum mean discrepancy () of points (M, C) and (K, C), all pairs included.

    The kernel is a sum of Cauchy kernels a² / (a² + d²) of the distance d.
    """
    return _mean_kernel(first, first) + _mean_kernel(second, second) - 2 * _mean_kernel(first, second)


def _mean_kernel(first: Tensor, second: Tensor) -> Tensor:
    # Not from `cdist`, whose gradient at a distance of 0 is undefined.
    squares = first.square().sum(-1, keepdim=True) + second.square().sum(-1) - 2 * first @ second.T
    squares = squares.clamp_min(0)
    return torch.stack([(scale**2 / (scale**2 + squares)).mean() for scale in _KERNEL_SCALES]).sum()


def most_used(codes: Tensor, counts: Tensor, number: int) -> Tensor:
    """Returns the `number` most used of codes (K, C), in their order, by how often (K,) each was chosen.

    Of equally used codes the first ones are kept.

    Raises:
        ValueError: If `number` is not between 1 and K.
    """
    if not 1 <= number <= len(codes):
        raise ValueError(f"There are {len(codes)} codes, of which {number} cannot be kept; IKM makes more.")
    kept = counts.sort(descending=True, stable=True).indices[:number].sort().values
    return codes[kept]
