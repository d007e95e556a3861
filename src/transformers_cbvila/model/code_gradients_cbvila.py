"""Gradient estimators for the choice of a code, which is not differentiable.

Shapes: C code width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def straight_through(latents: Tensor, codes: Tensor) -> Tensor:
    """Returns the codes (…, C); the gradient passes unchanged to the latents (…, C)."""
    return latents + (codes - latents).detach()


def rotate_to(latents: Tensor, codes: Tensor) -> Tensor:
    """Returns the codes (…, C); the gradient reaches the latents (…, C) rotated and rescaled, and never the codes.

    Fifty et al., "Restructuring vector quantization with the rotation trick", Eq. 4.2.
    """
    with torch.no_grad():
        ratio = codes.norm(dim=-1, keepdim=True) / latents.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        source, target = F.normalize(latents, dim=-1), F.normalize(codes, dim=-1)
        middle = F.normalize(source + target, dim=-1)
    along_middle = (latents * middle).sum(-1, keepdim=True)
    along_source = (latents * source).sum(-1, keepdim=True)
    return ratio * (latents - 2 * middle * along_middle + 2 * target * along_source)
