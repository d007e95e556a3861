"""Captions of a scene, all of them true, and each such that few other scenes have it.

A caption that is true of many images, such as "two objects", would be a wrong negative of contrast and matching. So
even partial captions name colour and shape of what they are about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from .draws import Draws
from .full_description import FullDescription, describe
from .scene import Scene, SceneObject, place_in, relation
from .wording import indefinite, noun_phrase, related, word
from .words import MIDDLE, NUMBERS, OPPOSITE, RELATION_WORDS, listed_in_words

CAPTION_TYPES = ("full", "full", "relation", "attribute", "count", "place", "place")
_TRIES = 8  # to put a second full caption otherwise

# Whether a caption, of which a description may be known, is one of those that an option asks for.
_CHOICES: dict[str, Callable[[str, FullDescription | None], bool]] = {
    "full": lambda text, described: described is not None and described.tells_sizes,
    "pairs": lambda text, described: described is not None and not described.tells_sizes,
    "places": lambda text, described: MIDDLE in text,
    "relations": lambda text, described: not RELATION_WORDS.isdisjoint(text.replace(",", " ").split()),
}


def captions_of(scene: Scene, size: int, draws: Draws) -> dict[str, FullDescription | None]:
    """Returns a caption of each of `CAPTION_TYPES`, in this order, as far as there are any for an image of this size.

    Each comes with what it says, if that is what a [`FullDescription`] can hold: full captions and relations.
    """
    order = draws.shuffled(range(len(scene.objects)))
    told = describe(scene, order)
    first = told.text(draws)
    captions: dict[str, FullDescription | None] = {first: told}
    captions |= _told_otherwise(scene, order, first, draws)
    if len(scene.objects) > 1:
        related_objects = two_related(scene, draws)
        captions.setdefault(relation_caption(related_objects, draws), related_objects)
    captions.setdefault(attribute_caption(scene, draws), None)
    captions.setdefault(count_caption(scene, draws), None)
    captions |= dict.fromkeys(place_captions(scene, size, draws))
    return captions


def only_those_that_tell(
    what: str, captions: dict[str, FullDescription | None], draws: Draws
) -> dict[str, FullDescription | None]:
    """Returns the captions that [`~options.SceneOptions`] asks for by `what`, or all if there is none of them."""
    chosen = _CHOICES["pairs" if what == "ordered" else what]
    found = {text: described for text, described in captions.items() if chosen(text, described)}
    if what == "ordered":
        ordered = [_in_reading_order(described) for described in found.values() if described is not None]
        found = {relation_caption(described, draws): described for described in ordered}
    return found or captions


def two_related(scene: Scene, draws: Draws) -> FullDescription:
    """Returns how two objects lie to each other, without their sizes."""
    one, other = draws.shuffled(scene.objects)[:2]
    return FullDescription(((one.kind, None), (other.kind, None)), ((0, relation(one.box, other.box), 1),))


def _in_reading_order(told: FullDescription) -> FullDescription:
    """Returns how two objects lie, told from the one that is left of the other or above it."""
    ((one, side, other),) = told.relations
    return told if side in ("left", "above") else FullDescription(told.objects[::-1], ((one, OPPOSITE[side], other),))


def relation_caption(told: FullDescription, draws: Draws) -> str:
    """Returns a caption about how two objects lie to each other."""
    (one, _), (other, _) = told.objects
    return related(indefinite(one, draws), told.relations[0][1], indefinite(other, draws), draws)


def caption_of(told: FullDescription, draws: Draws) -> str:
    """Returns what is told in words: a full caption, or one of a relation if no sizes are told."""
    return told.text(draws) if told.tells_sizes else relation_caption(told, draws)


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


def place_captions(scene: Scene, size: int, draws: Draws) -> list[str]:
    """Returns captions about how one object lies to the middle, for up to two objects that are at a side of it.

    From how objects lie to each other alone models hardly learn where anything is: what "left of" says of an object
    depends on where it is named and on where the other object lies. The middle stays where it is. Each caption tells
    one place, since two would tell each other: objects lie apart. The first names no other object, which might be
    taken for the one that is placed; the second does, before or after it.
    """
    placed = [(item, place) for item in draws.shuffled(scene.objects) if (place := place_in(item.box, size))][:2]
    captions: list[str] = []
    for item, place in placed:
        if not captions:
            captions.append(related(noun_phrase(item.kind, draws, item.size), place, MIDDLE, draws))
        else:
            other = draws.choice([other for other in scene.objects if other is not item])
            placed_item = related(indefinite(item.kind, draws), place, MIDDLE, draws)
            both = draws.shuffled([placed_item, indefinite(other.kind, draws)])
            captions.append(" and ".join(both))
    return captions


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


def _told_otherwise(scene: Scene, order: list[int], first: str, draws: Draws) -> dict[str, FullDescription | None]:
    """Returns a full caption in another order, which tells relations from the other side; none if none is found."""
    turned = [order[1], order[0], *reversed(order[2:])] if len(order) > 1 else order
    told = describe(scene, turned)
    for _ in range(_TRIES):
        caption = told.text(draws)
        if caption != first:
            return {caption: told}
    return {}
