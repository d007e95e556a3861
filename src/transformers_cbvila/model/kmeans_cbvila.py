"""k-means, which starts codes from features.

Shapes: M points, C width, K clusters.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def kmeans(
    points: Tensor,
    num_clusters: int,
    generator: torch.Generator,
    nearest: Callable[[Tensor, Tensor], Tensor],
    iterations: int = 10,
    unit_norm: bool = False,
) -> tuple[Tensor, Tensor]:
    """Clusters points and returns the centres (K, C) with their numbers of points (K,).

    Starts with k-means++ (distant points are more likely to be picked): images have so much plain background that
    uniform picks would give many equal centres. A cluster that becomes empty restarts at a random point.

    Args:
        points: (M, C).
        num_clusters: K.
        generator: Random generator, on the CPU.
        nearest: Maps points (M, C) and centres (K, C) to the index (M,) of each point's nearest centre.
        iterations: Number of updates of the centres.
        unit_norm: Whether to rescale centres to length 1 (spherical k-means, for points of length 1).

    Raises:
        ValueError: If there are fewer points than clusters.
    """
    require_points(points, num_clusters)
    centres = kmeans_plus_plus(points, num_clusters, generator)
    for _ in range(iterations):
        assigned = nearest(points, centres)
        counts = torch.bincount(assigned, minlength=num_clusters)
        sums = torch.zeros_like(centres).index_add_(0, assigned, points)
        picks = torch.randint(len(points), (num_clusters,), generator=generator).to(points.device)
        centres = torch.where(counts.unsqueeze(-1) > 0, sums / counts.clamp_min(1).unsqueeze(-1), points[picks])
        if unit_norm:
            centres = F.normalize(centres, dim=-1)
    return centres, torch.bincount(nearest(points, centres), minlength=num_clusters)


def require_points(points: Tensor, num_clusters: int) -> None:
    """Raises a ValueError unless there are at least as many points (M, C) as clusters."""
    if len(points) < num_clusters:
        raise ValueError(
            f"{len(points)} points cannot start {num_clusters} clusters: give more images, or fewer codes (the size "
            "in quantizer_config)."
        )


def kmeans_plus_plus(points: Tensor, num_clusters: int, generator: torch.Generator) -> Tensor:
    """Draws seeds (K, C), each with probability proportional to its squared distance from the previous ones."""
    chosen = torch.randint(len(points), (1,), generator=generator).tolist()
    distances = (points - points[chosen[0]]).square().sum(-1)
    for _ in range(num_clusters - 1):
        weights = distances.double().cpu().clamp_min(0) + 1e-12  # uniform when only duplicates are left
        chosen.append(int(torch.multinomial(weights, 1, generator=generator)))
        distances = torch.minimum(distances, (points - points[chosen[-1]]).square().sum(-1))
    return points[chosen].clone()
