"""Masked tokens (MLM) and masked patches (MIM), drawn from an explicit generator.

Shapes: L text tokens, N patches.
"""

import math

import torch
from torch import Tensor

IGNORED = -100


def generator_for(*key: int) -> torch.Generator:
    """Returns a generator that depends on the key only, for example (seed, epoch, row).

    A resumed run then draws the same as an uninterrupted one, whatever the loader prefetched.
    """
    state = 0x9E3779B97F4A7C15
    for part in key:
        # splitmix64: neighbouring keys must not give neighbouring streams
        state = (state + int(part) + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return torch.Generator().manual_seed(state & 0x7FFFFFFFFFFFFFFF)


def mask_tokens(
    input_ids: Tensor,
    maskable: Tensor,
    mask_token_id: int,
    vocab_size: int,
    generator: torch.Generator,
    probability: float = 0.15,
    replace: float = 0.8,
) -> tuple[Tensor, Tensor]:
    """Masks tokens of one text as BERT does.

    Args:
        input_ids: (L,) token ids.
        maskable: (L,) bool, false on special tokens and padding.
        mask_token_id: Id of [MASK].
        vocab_size: Number of tokens that a random one is drawn from.
        generator: Generator of the draws.
        probability: Share of maskable tokens to predict; at least one token is, so that each text has a target.
        replace: Share of those that become [MASK]; the rest is split evenly between a random token and the original.
            1.0 is the paper's wording.

    Returns:
        Corrupted ids (L,) and labels (L,), -100 where nothing is to be predicted.
    """
    # nothing is drawn for padding, so that a text's masks do not depend on the other texts of the batch
    length = int(maskable.nonzero().max()) + 1 if maskable.any() else 0
    text, rest, maskable = input_ids[:length], input_ids[length:], maskable[:length]
    draws = torch.rand(length, generator=generator)
    candidates = draws.masked_fill(~maskable, 2.0)
    chosen = candidates < probability
    if maskable.any() and not chosen.any():
        chosen[candidates.argmin()] = True
    labels = torch.where(chosen, text, IGNORED)
    fate = torch.rand(length, generator=generator)
    random_ids = torch.randint(vocab_size, (length,), generator=generator)
    corrupted = torch.where(chosen & (fate < replace), mask_token_id, text)
    corrupted = torch.where(chosen & (fate >= (1 + replace) / 2), random_ids, corrupted)
    return torch.cat([corrupted, rest]), torch.cat([labels, torch.full_like(rest, IGNORED)])


def mask_words(maskable: Tensor, generator: torch.Generator) -> Tensor:
    """Draws which words of a text to mask: a share from 0.1 to 0.3, most often near 0.3, but at least one word.

    The share follows a normal distribution (mean 0.5, deviation 0.1) cut to this range, as in LG-VQ.

    Args:
        maskable: (L,) bool, false on special tokens and padding.
        generator: Generator of the draws.

    Returns:
        (L,) bool.
    """
    normal = torch.distributions.Normal(0.5, 0.1)
    least, most = normal.cdf(torch.tensor([0.1, 0.3], dtype=torch.float64))
    share = normal.icdf(least + (most - least) * torch.rand((), dtype=torch.float64, generator=generator))
    draws = torch.rand(int(maskable.sum()), generator=generator)
    chosen = draws < share
    if len(draws) and not chosen.any():
        chosen[draws.argmin()] = True
    return torch.zeros_like(maskable).masked_scatter(maskable, chosen)


def drop(generator: torch.Generator, probability: float) -> bool:
    """Draws whether something is dropped, with a probability."""
    return bool(torch.rand((), generator=generator) < probability)


def mask_patches(num_patches: int, generator: torch.Generator, ratio: float = 0.75) -> Tensor:
    """Returns a bool mask (N,) that hides exactly floor(ratio * N) patches, drawn uniformly as in MAE."""
    return _hidden(num_patches, int(ratio * num_patches), generator)


def mask_patches_by_cosine(num_patches: int, generator: torch.Generator) -> Tensor:
    """Returns a bool mask (N,) that hides a drawn share of patches, as drawing from nothing needs (MaskGIT, Sec. 3.2).

    The share is cos(πu/2) for a uniform u, 2/π on average; at least one patch is hidden.
    """
    share = math.cos(math.pi / 2 * float(torch.rand((), dtype=torch.float64, generator=generator)))
    return _hidden(num_patches, max(1, math.ceil(share * num_patches)), generator)


def _hidden(num_patches: int, number: int, generator: torch.Generator) -> Tensor:
    hidden = torch.randperm(num_patches, generator=generator)[:number]
    return torch.zeros(num_patches, dtype=torch.bool).index_fill(0, hidden, True)
