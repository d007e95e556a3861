"""Encoding and matching that the processes of torch's group share. Each gets the whole result.

Shapes: P pairs.
"""

from collections.abc import Sequence
from math import ceil
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..model.item_lists_cbvila import by_position
from .encoding import GalleryEncoder
from .gallery import Encoded, Gallery, RetrievalModel, concatenate
from .pair_matching import match_pairs


def encode_together(encoder: GalleryEncoder, items: Any) -> Encoded:
    """Encodes items into memory, each process as many whole batches, which are those of one process.

    Args:
        encoder: The same one in all processes.
        items: The same ones.

    Raises:
        ValueError: As of [`GalleryEncoder.batches`].
    """
    items = by_position(items, encoder.kind)
    batches = ceil(len(items) / encoder.batch_size)
    first, end = (encoder.batch_size * edge for edge in _share(batches))
    own: list[Encoded] = []
    if first < end or not len(items):  # without any, it raises the error
        own = list(encoder.batches(_FirstItems(items, min(end, len(items))), skip=first))
    return concatenate(part for parts in _gathered(own) for part in parts)


def match_together(
    model: RetrievalModel, images: Gallery, texts: Gallery, pairs: Tensor, progress: bool = True
) -> Tensor:
    """Scores pairs (P, 2) as [`match_pairs`] does, each process a part of them; returns all scores (P,)."""
    first, end = _share(len(pairs))
    return torch.cat(_gathered(match_pairs(model, images, texts, pairs[first:end], progress=progress)))


def _share(count: int) -> tuple[int, int]:
    """Returns the first of what this process does of `count` things in a row, and the first after them."""
    rank, processes = dist.get_rank(), dist.get_world_size()
    first, end = (count * edge // processes for edge in (rank, rank + 1))
    return first, end


def _gathered(own: Any) -> list[Any]:
    """Returns what each process has, in their order."""
    found = [None] * dist.get_world_size()
    dist.all_gather_object(found, own)
    return found


class _FirstItems(Sequence):
    """The first items of others, each read when it is asked for."""

    def __init__(self, items: Any, count: int) -> None:
        self.items, self.number = items, count

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]
