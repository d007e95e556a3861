"""How many visual words stay hidden after each step of iterative decoding, and which (MaskGIT, arXiv 2202.04200).

Shapes: B images, N patches, ΣK codes of all books.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .losses_cbvila import at_least_fp32, by_book

Generators = torch.Generator | Sequence[torch.Generator] | None


# The share of patches that are still hidden when a share r of the steps is done, by the name of the schedule.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda r: math.cos(math.pi * r / 2),
    "linear": lambda r: 1 - r,
    "square": lambda r: 1 - r**2,
    "arccos": lambda r: math.acos(r) * 2 / math.pi,
}


def hidden_counts(hidden: int, num_steps: int, schedule: str = "cosine") -> list[int]:
    """Returns how many of `hidden` patches stay hidden after each step, by a schedule of `SCHEDULES`.

    After step t of T ⌈hidden · share(t / T)⌉ are, or one less than before if that is fewer, and after the last none.
    (MaskGIT's paper has this ceiling, its code rounds down.)
    """
    counts, left = [], hidden
    for step in range(1, num_steps + 1):
        # rounded first: the cosine of π/3 is 0.5000000000000001
        wanted = math.ceil(round(hidden * SCHEDULES[schedule](step / num_steps), 9))
        left = max(0, min(wanted, left - 1)) if step < num_steps else 0
        counts.append(left)
    return counts


def sample_codes(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, generator: Generators = None
) -> Tensor:
    """Samples the codes (B, N) of a book from its logits (B, N, K).

    Args:
        logits: The logits.
        temperature: Divides logits; at 0 the likeliest codes are taken.
        top_k: How many of the likeliest codes to sample from.
        generator: Generator of the samples, or one for each image.
    """
    logits = at_least_fp32(logits)
    if top_k is not None and top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(top_k, dim=-1).values[..., -1:], float("-inf"))
    if temperature > 0:
        logits = logits / temperature + gumbel_noise(logits, generator)
    return logits.argmax(-1)


def confidence_in(indices: Tensor, logits: Tensor, book_sizes: Sequence[int]) -> Tensor:
    """Returns the log-probabilities (B, N) of codes (B, N) or (B, N, books) at temperature 1, the mean over books.

    Args:
        indices: The codes.
        logits: (B, N, ΣK) those that they were sampled from.
        book_sizes: Number of codes of each book.
    """
    parts = zip(at_least_fp32(logits).split(list(book_sizes), dim=-1), by_book(indices, book_sizes), strict=True)
    scores = [part.log_softmax(-1).gather(-1, codes.unsqueeze(-1)).squeeze(-1) for part, codes in parts]
    return torch.stack(scores).mean(0)


def least_confident(confidence: Tensor, hidden: Tensor, counts: Tensor) -> Tensor:
    """Returns which hidden patches (B, N) stay hidden: of each image the `counts` (B,) with the lowest confidence."""
    ranks = confidence.masked_fill(~hidden, float("inf")).argsort(dim=1, stable=True).argsort(dim=1)
    return ranks < counts.unsqueeze(1)


def gumbel_noise(like: Tensor, generator: Generators = None) -> Tensor:
    """Returns samples of the standard Gumbel distribution in the shape of `like`, (B, …).

    With a generator for each of the B images, those of an image do not depend on the others of its batch.
    """
    if isinstance(generator, Sequence):
        rows = [torch.rand(like.shape[1:], generator=own, device=like.device, dtype=like.dtype) for own in generator]
        uniform = torch.stack(rows)
    else:
        uniform = torch.rand(like.shape, generator=generator, device=like.device, dtype=like.dtype)
    return -(-uniform.clamp_min(torch.finfo(like.dtype).tiny).log()).log()
