"""Captions that are false of a scene by as little as can be: hard negatives for matching.

As in a group of confusers, one of them swaps the colours of two objects, turns two objects around, or changes one
attribute of one. They name no kind, and no two kinds together, that the split must not show.
"""

from __future__ import annotations

from collections.abc import Callable

from .full_description import FullDescription
from .sampling import Sampler
from .scene import Scene
from .words import COLORS, SHAPES, SIZES, Kind

_TRIES = 6  # a change may name a held-out kind, or leave the description true


def false_description(description: FullDescription, scene: Scene, sampler: Sampler) -> FullDescription | None:
    """Returns what is told of a scene with one thing changed, so that it is false; None if no such change is found."""
    for _ in range(_TRIES):
        change = sampler.draws.choice(_CHANGES if len(description.objects) > 1 else (_changed,))
        objects = change(description.objects, sampler)
        found = FullDescription(objects, description.relations)
        kinds = [kind for kind, _ in objects]
        if (
            len(set(kinds)) == len(kinds)
            and all(sampler.may_meet(kinds[: end + 1]) for end in range(len(kinds)))
            and not found.holds(scene)
        ):
            return found
    return None


Told = tuple[tuple[Kind, str | None], ...]  # kind and size of each object


def _swapped(objects: Told, sampler: Sampler) -> Told:
    """Swaps the colours of two objects."""
    one, other = sampler.draws.shuffled(range(len(objects)))[:2]
    (first, first_size), (second, second_size) = objects[one], objects[other]
    found = list(objects)
    found[one] = first._replace(color=second.color), first_size
    found[other] = second._replace(color=first.color), second_size
    return tuple(found)


def _turned(objects: Told, sampler: Sampler) -> Told:
    """Puts two objects in each other's place."""
    one, other = sampler.draws.shuffled(range(len(objects)))[:2]
    found = list(objects)
    found[one], found[other] = found[other], found[one]
    return tuple(found)


def _changed(objects: Told, sampler: Sampler) -> Told:
    """Changes colour, shape or, where it is told, size of one object."""
    draws = sampler.draws
    found, number = list(objects), draws.below(len(objects))
    kind, size = objects[number]
    attribute = draws.choice(("color", "shape") if size is None else ("color", "shape", "size"))
    if attribute == "size":
        found[number] = kind, SIZES[1 - SIZES.index(size or SIZES[0])]
    else:
        names = tuple(COLORS) if attribute == "color" else SHAPES
        found[number] = kind._replace(**{attribute: draws.choice(names)}), size
    return tuple(found)


_CHANGES: tuple[Callable[[Told, Sampler], Told], ...] = (_swapped, _turned, _changed)
