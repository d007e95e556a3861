"""Look-up of nearest codes (Eq. 1), and code counts.

Shapes: M latents, C code width, K codes.
"""

import torch
from torch import Tensor

_CHUNK = 4096  # latents compared with all codes at once, which bounds memory


def nearest_codes(latents: Tensor, codes: Tensor) -> Tensor:
    """Returns, for latents (M, C), the indices (M,) of the nearest codes (K, C) by Euclidean distance (Eq. 1)."""
    half_norms = codes.square().sum(-1) / 2
    return torch.cat([distance_scores(chunk, codes, half_norms).argmin(-1) for chunk in latent_chunks(latents)])


def latent_chunks(latents: Tensor) -> tuple[Tensor, ...]:
    """Splits latents (M, C) into chunks small enough to be compared with all codes at once.

    A graph has a single chunk: the number of chunks would be a condition of the graph, and an exported program would
    accept no other batch size.
    """
    is_graph = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return (latents,) if is_graph else latents.split(_CHUNK)


def distance_scores(latents: Tensor, codes: Tensor, half_norms: Tensor) -> Tensor:
    """Returns half the squared distances (M, K) up to a constant per latent: |c|^2 / 2 - v.c."""
    # One matrix product, and never a (tokens, codes, width) tensor.
    return torch.addmm(half_norms, latents, codes.T, alpha=-1)


def count_codes(indices: Tensor, num_codes: int) -> Tensor:
    """Counts how often each of `num_codes` codes is among the indices (…), as (K,)."""
    flat = indices.flatten()
    # Not `bincount`, which waits for the device.
    return torch.zeros(num_codes, dtype=torch.long, device=flat.device).scatter_add(0, flat, torch.ones_like(flat))
