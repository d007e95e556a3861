"""Captions of a scene, all of them true, and each such that few other scenes have it.

A caption that is true of many images, such as "two objects", would be a wrong negative of contrast and matching. So
even partial captions name colour and shape of what they are about.
"""

from __future__ import annotations

from collections import Counter

from .draws import Draws
from .full_description import describe
from .scene import Scene, SceneObject, relation
from .wording import indefinite, noun_phrase, related, word
from .words import NUMBERS, listed_in_words

CAPTION_TYPES = ("full", "full", "relation", "attribute", "count")
_TRIES = 8  # to put a second full caption otherwise


def captions_of(scene: Scene, draws: Draws) -> list[str]:
    """Returns a caption of each of `CAPTION_TYPES`, in this order; of a single object those that there are."""
    order = draws.shuffled(range(len(scene.objects)))
    first = full_caption(scene, order, draws)
    captions = [first, _told_otherwise(scene, order, first, draws)]
    if len(scene.objects) > 1:
        captions.append(relation_caption(scene, draws))
    return list(dict.fromkeys([*captions, attribute_caption(scene, draws), count_caption(scene, draws)]))


def full_caption(scene: Scene, order: list[int], draws: Draws) -> str:
    """Returns a caption with all objects, all their attributes and how they lie."""
    return describe(scene, order).text(draws)


def relation_caption(scene: Scene, draws: Draws) -> str:
    """Returns a caption about how two objects lie to each other, without their sizes."""
    one, other = draws.shuffled(scene.objects)[:2]
    return related(indefinite(one.kind, draws), relation(one.box, other.box), indefinite(other.kind, draws), draws)


def attribute_caption(scene: Scene, draws: Draws) -> str:
    """Returns a caption about two objects, or the only one, that says nothing of places."""
    chosen = draws.shuffled(scene.objects)[:2]
    if draws.chance(0.5):
        return " and ".join(noun_phrase(item.kind, draws, item.size) for item in chosen)
    return " and ".join(f"the {noun_phrase(item.kind, draws)} is {word(item.size, draws)}" for item in chosen)


def count_caption(scene: Scene, draws: Draws) -> str:
    """Returns a caption that counts: objects of a shape or a colour where there are several of one, else all."""
    shapes = Counter(item.kind.shape for item in scene.objects)
    colors = Counter(item.kind.color for item in scene.objects)
    able = [name for name, counts in (("shape", shapes), ("color", colors)) if len(counts) < len(scene.objects)]
    objects = draws.shuffled(scene.objects)
    if not able:
        number = "one shape" if len(objects) == 1 else f"{NUMBERS[len(objects)]} shapes"
        return f"{number}: {listed_in_words([indefinite(item.kind, draws) for item in objects])}"
    by = draws.choice(able)
    groups: dict[str, list[SceneObject]] = {}
    for item in objects:
        groups.setdefault(getattr(item.kind, by), []).append(item)
    return " and ".join(_group(items, by, draws) for items in groups.values())


def _group(items: list[SceneObject], by: str, draws: Draws) -> str:
    """Returns "two circles (a red one and a blue one)", "two red shapes (a circle and a ring)" or "a red circle"."""
    if len(items) == 1:
        return indefinite(items[0].kind, draws)
    number = NUMBERS[len(items)]
    if by == "shape":
        ones = [f"{'an' if item.kind.color == 'orange' else 'a'} {word(item.kind.color, draws)} one" for item in items]
        return f"{number} {plural(word(items[0].kind.shape, draws))} ({listed_in_words(ones)})"
    ones = [f"a {word(item.kind.shape, draws)}" for item in items]
    return f"{number} {word(items[0].kind.color, draws)} shapes ({listed_in_words(ones)})"


def plural(noun: str) -> str:
    """Returns "crosses" or "circles"."""
    return f"{noun}es" if noun.endswith(("s", "x")) else f"{noun}s"


def _told_otherwise(scene: Scene, order: list[int], first: str, draws: Draws) -> str:
    """Returns a full caption in another order, which tells relations from the other side."""
    turned = [order[1], order[0], *reversed(order[2:])] if len(order) > 1 else order
    for _ in range(_TRIES):
        caption = full_caption(scene, turned, draws)
        if caption != first:
            return caption
    return first
