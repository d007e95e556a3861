"""The pairs of earlier batches, as momentum copies embedded them: what ITC compares with beside the batch (ALBEF)."""

from typing import Any

import torch

from ..model.momentum_cbvila import MomentumPairs


class PairQueue:
    """A ring of up to `size` pairs: the newest replace the oldest, however many come at once.

    Where nothing was written yet there is nothing to read. In checkpoints of a run it is as it lies in memory, so that
    sums over it round as they would have.

    Attributes:
        place: Where the next pair goes.
        count: How many pairs there are.
    """

    def __init__(self, size: int):
        self.size, self.place, self.count = size, 0, 0
        self._ring: MomentumPairs | None = None

    @torch.no_grad()
    def write(self, pairs: MomentumPairs) -> None:
        """Takes in pairs (n), oldest first; of more than `size` the last ones."""
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
        """The pairs that there are, (`count`), or None; the next `write` changes them."""
        return None if self._ring is None else MomentumPairs(*(rows[: self.count] for rows in self._ring))

    def state_dict(self) -> dict[str, Any]:
        ring = None if self._ring is None else self._ring._asdict()
        return {"size": self.size, "place": self.place, "count": self.count, "ring": ring}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on with a queue of the same size; one of another size is left, and this one begins empty."""
        if state["size"] == self.size and state["ring"] is not None:
            self.place, self.count, self._ring = state["place"], state["count"], MomentumPairs(**state["ring"])
