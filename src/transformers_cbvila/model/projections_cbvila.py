"""The way from tokens to latents, and from codes back to tokens.

Shapes: D width of tokens, C code width.
"""

from torch import Tensor, nn


def projections(width: int, dim: int) -> tuple[nn.Module, nn.Linear]:
    """What turns tokens (…, D) into latents (…, C), and codes (…, C) into quantized tokens (…, D)."""
    return nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, dim)), nn.Linear(dim, width)


def project(projection: nn.Module, x: Tensor) -> Tensor:
    """A projection of `x` in the precision of its weights: fp32, unless the whole model was cast to another."""
    weight = next(projection.parameters(), x)
    return projection(x.to(weight.dtype))
