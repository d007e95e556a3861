"""The queue of ITC (ALBEF): pairs of earlier batches, as the momentum encoder embedded them."""

from typing import Any

import torch

from ...model.momentum_cbvila import MomentumPairs


class PairQueue:
    """A ring buffer of up to `size` pairs: the newest replace the oldest.

    A checkpoint keeps the order in memory, so that sums over a restored queue round the same way.

    Args:
        size: Number of pairs that it holds; 0 holds none.

    Attributes:
        place: Index at which the next pair is written.
        count: Number of pairs in the queue.
    """

    def __init__(self, size: int) -> None:
        self.size, self.place, self.count = size, 0, 0
        self._ring: MomentumPairs | None = None

    @torch.no_grad()
    def write(self, pairs: MomentumPairs) -> None:
        """Adds n pairs, oldest first; of more than `size` only the last ones."""
        if self.size == 0:
            return
        newest = MomentumPairs(*(rows[-self.size :] for rows in pairs))
        if self._ring is None:
            self._ring = MomentumPairs(*(rows.new_zeros(self.size, *rows.shape[1:]) for rows in newest))
        self._ring = self._ring.padded(newest.known_text_ids.shape[1])
        newest = newest.padded(self._ring.known_text_ids.shape[1])
        taken = newest.text_ids.shape[0]
        places = (torch.arange(taken, device=newest.text_ids.device) + self.place) % self.size
        for own, rows in zip(self._ring, newest, strict=True):
            own.index_copy_(0, places, rows)
        self.place, self.count = (self.place + taken) % self.size, min(self.count + taken, self.size)

    def read(self) -> MomentumPairs | None:
        """Returns the `count` pairs of the queue, or None if it is empty; the next `write` changes them in place."""
        return None if self._ring is None else MomentumPairs(*(rows[: self.count] for rows in self._ring))

    def state_dict(self) -> dict[str, Any]:
        """Returns the pairs and the position of the next one."""
        ring = None if self._ring is None else self._ring._asdict()
        return {"size": self.size, "place": self.place, "count": self.count, "ring": ring}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Loads a queue of the same size; one of another size is ignored, and this one starts empty."""
        if state["size"] == self.size and state["ring"] is not None:
            self.place, self.count, self._ring = state["place"], state["count"], MomentumPairs(**state["ring"])
