"""Look-up of the nearest codes (Eq. 1), and counting them.

Shapes: M latents, C code width, K codes.
"""

import torch
from torch import Tensor

_CHUNK = 4096  # latents whose distances to all codes are in memory at once


def nearest_codes(latents: Tensor, codes: Tensor) -> Tensor:
    """Eq. 1: for latents (M, C) the indices (M,) of the nearest of the codes (K, C) by Euclidean distance."""
    half_norms = codes.square().sum(-1) / 2
    return torch.cat([distance_scores(chunk, codes, half_norms).argmin(-1) for chunk in latent_chunks(latents)])


def latent_chunks(latents: Tensor) -> tuple[Tensor, ...]:
    """Latents (M, C) in parts that are small enough to be compared with all codes at once.

    In a graph they are one part: how many there are would otherwise be a condition of it, and an exported program
    would take no other batch.
    """
    is_graph = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return (latents,) if is_graph else latents.split(_CHUNK)


def distance_scores(latents: Tensor, codes: Tensor, half_norms: Tensor) -> Tensor:
    """Half the squared distances (M, K), less what is the same for all codes of a latent: |c|^2 / 2 - v.c."""
    # One matrix product, and never a (tokens, codes, width) tensor.
    return torch.addmm(half_norms, latents, codes.T, alpha=-1)


def count_codes(indices: Tensor, num_codes: int) -> Tensor:
    """How often each of `num_codes` codes is among the indices (…): (K,). (`bincount` waits for the device.)"""
    flat = indices.flatten()
    return torch.zeros(num_codes, dtype=torch.long, device=flat.device).scatter_add(0, flat, torch.ones_like(flat))
