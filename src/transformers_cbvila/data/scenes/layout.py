"""Where objects lie: free places without overlap, in a layout that only one split has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .draws import Draws
from .options import SPLITS
from .scene import Box, relation

# Sides in 64ths of an image.
SIDES = {"small": (12, 15), "big": (20, 23), "screen": (24, 26)}
_MARGIN, _GAP, _OFF_DIAGONAL = 1, 2, 4
_TRIES = 60  # of one object, before all are placed again
# Every layout belongs to one of 16 classes, and every class to one split: no image of one is in another.
_CLASSES = 16
_CLASSES_OF = {split: (_CLASSES - 1 - i,) for i, split in enumerate(SPLITS[1:])} | {"train": tuple(range(12))}


class Arrangement(NamedTuple):
    """How one object shall lie to another, by their numbers; see [`relation`]."""

    first: int
    relation: str
    second: int


def side_of(draws: Draws, size: str, image_size: int) -> int:
    """Returns a side in pixels for an object of this size, or for a screen."""
    first, last = SIDES[size]
    return draws.between(first * image_size // 64, last * image_size // 64)


def place(
    draws: Draws, sizes: Sequence[str], image_size: int, split: str, arrangement: Arrangement | None = None
) -> list[Box]:
    """Returns a box for each size, in this order. Positions are drawn until all fit; they always do in the end."""
    sides = [side_of(draws, size, image_size) for size in sizes]
    order = sorted(range(len(sides)), key=lambda number: -sides[number])  # the largest first: they need most room
    while True:
        placed: dict[int, Box] = {}
        for number in order:
            box = _free(
                draws,
                placed,
                number,
                sides[number],
                image_size,
                split if len(placed) == len(sides) - 1 else None,
                arrangement,
            )
            if box is None:
                break
            placed[number] = box
        else:
            return [placed[number] for number in range(len(sides))]


def fits(box: Box, others: Iterable[Box], image_size: int) -> bool:
    """Returns whether a box is clear of others: apart, and to one side of each, not at a diagonal."""
    gap, off_diagonal = _GAP * image_size // 64, 2 * _OFF_DIAGONAL * image_size // 64
    left, top, right, bottom = box
    for other in others:
        if not (
            left - other[2] >= gap or other[0] - right >= gap or top - other[3] >= gap or other[1] - bottom >= gap
        ):
            return False
        across, down = abs(left + right - other[0] - other[2]), abs(top + bottom - other[1] - other[3])
        if -off_diagonal < across - down < off_diagonal:
            return False
    return True


def belongs_to(boxes: Iterable[Box], split: str) -> bool:
    """Returns whether a layout is one of a split; the order of boxes does not matter."""
    return _class(sum(map(_mixed, boxes))) in _CLASSES_OF[split]


def _free(
    draws: Draws,
    placed: dict[int, Box],
    number: int,
    side: int,
    image_size: int,
    split: str | None,
    arrangement: Arrangement | None,
) -> Box | None:
    """Returns a free place for an object, or None if none is found soon.

    With a split, the place completes a layout of it.
    """
    first = _MARGIN * image_size // 64
    last = image_size - first - side
    before = sum(map(_mixed, placed.values()))
    tries = _TRIES if split in (None, "train") else _TRIES * _CLASSES
    for _ in range(tries):
        left, top = draws.between(first, last), draws.between(first, last)
        box = Box(left, top, left + side, top + side)
        if split is not None and _class(before + _mixed(box)) not in _CLASSES_OF[split]:
            continue
        if fits(box, placed.values(), image_size) and _is_arranged(box, placed, number, arrangement):
            return box
    return None


def _is_arranged(box: Box, placed: dict[int, Box], number: int, arrangement: Arrangement | None) -> bool:
    """Returns whether an object lies as it shall to the other, or that other has no place yet."""
    if arrangement is None or number not in (arrangement.first, arrangement.second):
        return True
    first, second = (box if at == number else placed.get(at) for at in (arrangement.first, arrangement.second))
    return first is None or second is None or relation(first, second) == arrangement.relation


def _mixed(box: Box) -> int:
    return box[0] * 73856093 ^ box[1] * 19349663 ^ box[2] * 83492791


def _class(mixed: int) -> int:
    return ((mixed * 2654435761) >> 16) % _CLASSES
