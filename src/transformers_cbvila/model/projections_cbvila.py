"""Projections between visual tokens and codes.

Shapes: D width of tokens, C code width.
"""

from torch import Tensor, nn


def projections(width: int, dim: int) -> tuple[nn.Module, nn.Linear]:
    """Returns modules that map tokens (…, D) to latents (…, C), and codes (…, C) to quantized tokens (…, D)."""
    return nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, dim)), nn.Linear(dim, width)


def project(projection: nn.Module, x: Tensor) -> Tensor:
    """Applies a projection in the dtype of its weights: fp32, unless the whole model was cast to another."""
    weight = next(projection.parameters(), x)
    return projection(x.to(weight.dtype))
