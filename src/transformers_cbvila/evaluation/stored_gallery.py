"""Galleries on disk, for more images or texts than memory holds: what was encoded is mapped, not read.

Shapes: M images or texts, S tokens, D width of states, E embedding width.
"""

import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .gallery import Encoded, gather
from .shards import Shards, read_description, read_shards

# Arrow has no bfloat16: its bits are kept as integers.
_STORED_AS = {torch.bfloat16: torch.int16}


class StoredStates(Sequence):
    """The states (S, D) of each item, from parts of flat values and the places where items begin and end in them."""

    def __init__(self, values: list[Tensor], offsets: list[Any], width: int):
        self.values, self.offsets, self.width = values, offsets, width
        self.ends = list(accumulate(len(part) - 1 for part in offsets))

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, row: Any) -> Tensor:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        part = bisect_right(self.ends, row)
        offsets, place = self.offsets[part], int(row) - (self.ends[part - 1] if part else 0)
        return self.values[part][offsets[place] : offsets[place + 1]].view(-1, self.width)


class StoredGallery:
    """A [`Gallery`] in a folder that [`store_gallery`] wrote.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it was not finished.
    """

    def __init__(self, folder: str | Path):
        self.folder, self.description = Path(folder), read_description(folder)
        parts = read_shards(folder)
        if not self.description.get("complete"):
            raise ValueError(
                f"The gallery in {folder} isn't complete ({sum(map(len, parts)):,} items so far): go on with "
                f"index(..., folder={str(folder)!r})."
            )
        chunks = [part.data.column("embeds").chunk(0) for part in parts]
        self.blocks = [_mapped(chunk.values).view(len(chunk), -1) for chunk in chunks]
        self.states: Sequence[Tensor] = []
        if self.description["width"]:
            chunks = [part.data.column("states").chunk(0) for part in parts]
            dtype = getattr(torch, self.description["dtype"])
            values = [_mapped(chunk.values).view(dtype) for chunk in chunks]
            self.states = StoredStates(values, [c.offsets.to_numpy() for c in chunks], self.description["width"])


def _mapped(array: Any) -> Tensor:
    """An Arrow array as a tensor in the same place."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array.to_numpy(zero_copy_only=True))


def store_gallery(
    folder: str | Path,
    description: dict[str, Any],
    batches: Callable[[int], Iterator[Encoded]],
    count: int | None = None,
    shard_bytes: int = 2**28,
) -> StoredGallery:
    """Writes a gallery, or what of it is not there yet.

    Args:
        description: What tells it from another: `width`, D of the states, or 0 to leave them out; their `dtype`; and
            whatever else has to be the same to go on, e.g. the model's [`weights_id`].
        batches: Encodes all items but the first so many.
        count: M, where it is known.
        shard_bytes: About how much a shard holds, and so how much of the gallery is in memory.

    Raises:
        ValueError: If the folder holds anything else.
    """
    shards, pending, size = Shards(folder, description), list[Encoded](), 0
    if count is not None and (shards.rows > count or shards.complete and shards.rows != count):
        raise ValueError(
            f"{folder} holds a gallery of {shards.rows:,} items and this one has {count:,}: give another folder."
        )
    if not shards.complete:
        for batch in batches(shards.rows):
            pending.append(batch)
            size += batch.embeds.nbytes + sum(states.nbytes for states in batch.states)
            if size >= shard_bytes:
                shards.append(_columns(pending, description))
                pending, size = [], 0
        if pending:
            shards.append(_columns(pending, description))
        shards.finish()
    return StoredGallery(folder)


def _columns(batches: list[Encoded], description: dict[str, Any]) -> dict[str, list]:
    whole = gather(batches)
    columns: dict[str, list] = {"embeds": list(whole.embeds.numpy())}
    if description["width"]:
        stored = _STORED_AS.get(whole.states[0].dtype, whole.states[0].dtype)
        columns["states"] = [states.flatten().view(stored).numpy() for states in whole.states]
    return columns
