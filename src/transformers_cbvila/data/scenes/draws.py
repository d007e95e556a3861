"""Random draws that depend on a key alone, and are the same in every process and version of Python."""

from __future__ import annotations

import random
from collections.abc import Sequence
from hashlib import blake2b, shake_128
from typing import Any, TypeVar

Item = TypeVar("Item")


class Draws:
    """A stream of draws.

    Of Python's `random` only `random()` is used: it is what Python promises to keep. Seeding a `Generator` of NumPy
    takes several times as long.

    Args:
        key: Numbers and words; equal ones give equal draws.
    """

    def __init__(self, *key: Any) -> None:
        self._key = repr(key).encode()
        seed = int.from_bytes(blake2b(self._key, digest_size=8).digest(), "big")
        self._random = random.Random(seed).random

    def below(self, end: int) -> int:
        """Returns an integer from 0 to `end` - 1."""
        return int(self._random() * end)

    def between(self, first: int, last: int) -> int:
        """Returns an integer from `first` to `last`."""
        return first + int(self._random() * (last - first + 1))

    def chance(self, share: float) -> bool:
        """Returns True in this share of cases."""
        return self._random() < share

    def choice(self, items: Sequence[Item]) -> Item:
        """Returns one of the items."""
        return items[int(self._random() * len(items))]

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        """Returns the items in another order."""
        mixed = list(items)
        for last in range(len(mixed) - 1, 0, -1):
            other = int(self._random() * (last + 1))
            mixed[last], mixed[other] = mixed[other], mixed[last]
        return mixed

    def noise(self, length: int) -> bytes:
        """Returns so many random bytes, which depend on the key and not on earlier draws."""
        return shake_128(self._key).digest(length)
