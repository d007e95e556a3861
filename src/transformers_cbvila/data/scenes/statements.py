"""Statements that are true or false of objects, with their words: what entailment and reasoning are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from .captions import plural
from .scene import SceneObject, relation
from .words import COLORS, NUMBERS, Kind, with_article


class Statement(Protocol):
    """Something that is true or false of objects."""

    def holds(self, objects: Sequence[SceneObject]) -> bool:
        """Returns whether it is true when these are all objects."""

    def named(self) -> list[Kind]:
        """Returns a kind of each sort that matters: an object of any kind is for it as one of these, or as none."""


class Shows(NamedTuple):
    """There is an object of this kind."""

    kind: Kind

    def holds(self, objects: Sequence[SceneObject]) -> bool:
        """Returns whether it is true when these are all objects."""
        return any(item.kind == self.kind for item in objects)

    def named(self) -> list[Kind]:
        """Returns a kind of each sort that matters."""
        return [self.kind]

    def __str__(self) -> str:
        return f"there is {a(self.kind)}"


class Lacks(NamedTuple):
    """There is no object of this kind."""

    kind: Kind

    def holds(self, objects: Sequence[SceneObject]) -> bool:
        """Returns whether it is true when these are all objects."""
        return not any(item.kind == self.kind for item in objects)

    def named(self) -> list[Kind]:
        """Returns a kind of each sort that matters."""
        return [self.kind]

    def __str__(self) -> str:
        return f"there is no {' '.join(self.kind)}"


class Every(NamedTuple):
    """All objects of the shape, of which there is one at least, have the colour."""

    kind: Kind

    def holds(self, objects: Sequence[SceneObject]) -> bool:
        """Returns whether it is true when these are all objects."""
        colors = {item.kind.color for item in objects if item.kind.shape == self.kind.shape}
        return colors == {self.kind.color}

    def named(self) -> list[Kind]:
        """Returns a kind of each sort that matters."""
        return [self.kind, next(kind for kind in _of_shape(self.kind.shape) if kind != self.kind)]

    def __str__(self) -> str:
        return f"every {self.kind.shape} is {self.kind.color}"


class Related(NamedTuple):
    """An object of one kind lies so to one of another kind."""

    first: Kind
    relation: str
    second: Kind

    def holds(self, objects: Sequence[SceneObject]) -> bool:
        """Returns whether it is true when these are all objects."""
        ones = [item.box for item in objects if item.kind == self.first]
        others = [item.box for item in objects if item.kind == self.second]
        return any(relation(one, other) == self.relation for one in ones for other in others)

    def named(self) -> list[Kind]:
        """Returns a kind of each sort that matters."""
        return [self.first, self.second]

    def __str__(self) -> str:
        side = f"{self.relation} of" if self.relation in ("left", "right") else self.relation
        return f"{a(self.first)} is {side} {a(self.second)}"


class Exactly(NamedTuple):
    """There are so many objects of a shape, and no more."""

    number: int
    shape: str

    def holds(self, objects: Sequence[SceneObject]) -> bool:
        """Returns whether it is true when these are all objects."""
        return count(objects, self.shape) == self.number

    def named(self) -> list[Kind]:
        """Returns a kind of each sort that matters."""
        return [_of_shape(self.shape)[0]]

    def __str__(self) -> str:
        if self.number == 1:
            return f"there is exactly one {self.shape}"
        return f"there are exactly {NUMBERS[self.number]} {plural(self.shape)}"


class More(NamedTuple):
    """There are more objects of one shape than of another."""

    shape: str
    other: str

    def holds(self, objects: Sequence[SceneObject]) -> bool:
        """Returns whether it is true when these are all objects."""
        return count(objects, self.shape) > count(objects, self.other)

    def named(self) -> list[Kind]:
        """Returns a kind of each sort that matters."""
        return [_of_shape(self.shape)[0], _of_shape(self.other)[0]]

    def __str__(self) -> str:
        return f"there are more {plural(self.shape)} than {plural(self.other)}"


def _of_shape(shape: str) -> list[Kind]:
    return [Kind(color, shape) for color in COLORS]


def count(objects: Sequence[SceneObject], shape: str) -> int:
    """Returns how many objects have the shape."""
    return sum(item.kind.shape == shape for item in objects)


def a(kind: Kind) -> str:
    """Returns "a red circle"."""
    return with_article(" ".join(kind))
