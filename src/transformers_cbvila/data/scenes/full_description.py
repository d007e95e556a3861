"""A full description of a scene: all objects with all attributes, and how they lie to each other."""

from __future__ import annotations

from dataclasses import dataclass

from .draws import Draws
from .scene import Scene, relation
from .wording import noun_phrase, related
from .words import Kind

_BEGINNINGS = ("", "", "", "there is ", "an image of ")  # as often nothing as that

# Which objects a caption relates, by the number of objects.
_PAIRS: dict[int, tuple[tuple[int, int], ...]] = {1: (), 2: ((0, 1),), 3: ((0, 1), (2, 1)), 4: ((0, 1), (2, 3))}


@dataclass(frozen=True)
class FullDescription:
    """What a full caption says.

    Attributes:
        objects: Kind and size of each object, in the order of the caption; `None` where the size is not told.
        relations: How an object lies to an earlier or later one, by their numbers.
    """

    objects: tuple[tuple[Kind, str | None], ...]
    relations: tuple[tuple[int, str, int], ...]

    @property
    def tells_sizes(self) -> bool:
        """Whether it tells the sizes of its objects, as full captions do, and those of a relation alone do not."""
        return all(size is not None for _, size in self.objects)

    def holds(self, scene: Scene) -> bool:
        """Returns whether it is true of a scene, which may have further objects."""
        found = {item.kind: item for item in scene.objects}
        if any(kind not in found or size not in (None, found[kind].size) for kind, size in self.objects):
            return False
        boxes = [found[kind].box for kind, _ in self.objects]
        return all(relation(boxes[one], boxes[other]) == name for one, name, other in self.relations)

    def text(self, draws: Draws) -> str:
        """Returns it in words.

        Such as "a big red circle left of a small blue square and a big red ring below the blue square".
        """
        beginning = draws.choice(_BEGINNINGS)
        phrases = [noun_phrase(kind, draws, size) for kind, size in self.objects]
        clauses: list[str] = []
        told: set[int] = set()
        for one, name, other in self.relations:
            second = f"the {noun_phrase(self.objects[other][0], draws)}" if other in told else phrases[other]
            clauses.append(related(phrases[one], name, second, draws, may_be_sentence=not beginning))
            told |= {one, other}
        return beginning + (" and ".join(clauses) or phrases[0])


def describe(scene: Scene, order: list[int]) -> FullDescription:
    """Returns what holds of a scene, objects in this order.

    The caption says how the first lies to the second, and the third to the second. With four it says how the third
    lies to the fourth, so that it stays short.
    """
    objects = [scene.objects[number] for number in order]
    pairs = _PAIRS[len(objects)]
    relations = tuple((one, relation(objects[one].box, objects[other].box), other) for one, other in pairs)
    return FullDescription(tuple((item.kind, item.size) for item in objects), relations)
