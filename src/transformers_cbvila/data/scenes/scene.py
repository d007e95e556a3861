"""A scene: objects with their boxes, and what follows from these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from .words import Kind


class Box(NamedTuple):
    """Pixels from `left` and `top` up to, but without, `right` and `bottom`."""

    left: int
    top: int
    right: int
    bottom: int


class SceneObject(NamedTuple):
    """One object: what it is, and where. A shape touches the sides of its box, in the label map but for thin tips."""

    kind: Kind
    size: str
    box: Box

    def record(self) -> dict[str, Any]:
        """Returns the object as rows have it."""
        return {"shape": self.kind.shape, "colour": self.kind.color, "size": self.size, "box": list(self.box)}


@dataclass(frozen=True)
class Scene:
    """Objects on free places, no two of one kind.

    Attributes:
        objects: All that can be seen, besides a screen.
        screen: A grey rectangle that hides exactly one object, of which nothing is known; for entailment only.
    """

    objects: tuple[SceneObject, ...]
    screen: Box | None = None

    @property
    def kinds(self) -> list[Kind]:
        """The kinds of all objects."""
        return [item.kind for item in self.objects]

    def graph(self) -> list[dict[str, Any]]:
        """Returns what holds between every two objects, by their numbers: how the first lies to the second."""
        return [
            {
                "first": i,
                "second": j,
                "relation": relation(one.box, other.box),
                "same_shape": one.kind.shape == other.kind.shape,
                "same_color": one.kind.color == other.kind.color,
                "same_size": one.size == other.size,
            }
            for i, one in enumerate(self.objects)
            for j, other in enumerate(self.objects)
            if i != j
        ]


def relation(one: Box, other: Box) -> str:
    """Returns how a box lies to another: `left`, `right`, `above` or `below`.

    That is told along the axis on which they are farther apart, as in ShapeWorld, so that exactly one of the four
    holds. Layouts keep clear of the diagonals.
    """
    across, down = offset(one, other)
    if abs(across) > abs(down):
        return "left" if across < 0 else "right"
    return "above" if down < 0 else "below"


def place_in(box: Box, size: int) -> str | None:
    """Returns how a box lies to the centre of an image of this size, as [`relation`] says it; None if not clearly so.

    Clearly is an eighth of the image from the centre, and a sixteenth from the diagonals.
    """
    centre = Box(0, 0, size, size)
    across, down = (abs(distance) for distance in offset(box, centre))  # in half pixels
    is_clear = max(across, down) >= size // 4 and abs(across - down) >= size // 8
    return relation(box, centre) if is_clear else None


def offset(one: Box, other: Box) -> tuple[int, int]:
    """Returns how far the centre of a box is from another's, to the right and down, in half pixels."""
    return one[0] + one[2] - other[0] - other[2], one[1] + one[3] - other[1] - other[3]
