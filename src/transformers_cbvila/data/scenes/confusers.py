"""A gallery for retrieval: each caption is true of one image, and three others differ from that as little as can be.

Images come in groups of four: one, the same with the colours of two objects swapped, with two objects in each other's
place, and with one attribute of one object changed. Their captions are worded alike: with two objects, the first three
have the same words in another order, so that a model that reads captions as bags of words cannot tell them apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from .draws import Draws
from .full_description import FullDescription, describe
from .layout import belongs_to, fits, side_of
from .options import SceneOptions
from .sampling import Sampler
from .scene import Box, Scene, SceneObject
from .words import COLORS, SHAPES, SIZES, Kind

ROLES = ("original", "swapped", "turned", "changed")
SPLIT = "confusers"
_ATTEMPTS = 2_000  # at one group; a few are usual
_NUDGES = 100  # at places for objects that move, most of which are in layouts of other splits


class Confuser(NamedTuple):
    """One image of the gallery with its caption."""

    scene: Scene
    caption: str
    role: str


class Gallery:
    """The images of a gallery in their order; each group is drawn until no caption is true of two images.

    Row i depends on the rows before it, and on nothing else: a gallery of 100 rows is the beginning of one of 1,000.

    Args:
        options: Options of the source.
    """

    def __init__(self, options: SceneOptions) -> None:
        self._options = options
        self._rows: list[Confuser] = []
        self._scenes = defaultdict[tuple[Kind, str | None], list[Scene]](list)  # by an object
        self._told = defaultdict[tuple[Kind, str | None], list[FullDescription]](list)  # by the caption's first object

    def __getitem__(self, row: int) -> Confuser:
        while len(self._rows) <= row:
            self._add_group()
        return self._rows[row]

    def _add_group(self) -> None:
        group = len(self._rows) // len(ROLES)
        for attempt in range(_ATTEMPTS):
            draws = Draws(self._options.seed, SPLIT, group, attempt)
            found = _group(draws, self._options)
            if found is not None and self._is_clear(*found):
                self._add(*found, (self._options.seed, SPLIT, group, attempt, "words"))
                return
        raise ValueError(
            f"No more than {len(self._rows):,} images without captions that are true of two were found; take fewer "
            "rows of the split confusers, or more objects."
        )

    def _is_clear(self, scenes: list[Scene], told: list[FullDescription]) -> bool:
        """Returns whether each caption is true of its scene alone, of these and of all before."""
        for number, description in enumerate(told):
            if [description.holds(scene) for scene in scenes] != [other == number for other in range(len(scenes))]:
                return False
            if any(description.holds(scene) for scene in self._scenes[description.objects[0]]):
                return False
        return not any(
            earlier.holds(scene)
            for scene in scenes
            for item in scene.objects
            for earlier in self._told[item.kind, item.size]
        )

    def _add(self, scenes: list[Scene], told: list[FullDescription], key: tuple[Any, ...]) -> None:
        """Adds a group, whose captions are worded alike."""
        for scene, description, role in zip(scenes, told, ROLES, strict=True):
            self._rows.append(Confuser(scene, description.text(Draws(*key)), role))
            self._told[description.objects[0]].append(description)
            for item in scene.objects:
                self._scenes[item.kind, item.size].append(scene)


@lru_cache(maxsize=4)
def gallery(options: SceneOptions) -> Gallery:
    """Returns the gallery of these options; what is drawn of it is kept."""
    return Gallery(options)


def _group(draws: Draws, options: SceneOptions) -> tuple[list[Scene], list[FullDescription]] | None:
    """Returns an image and its confusers with what is told of each, or None if these would not be as they must."""
    sampler = Sampler(draws, options, SPLIT)
    original = sampler.scene(sampler.kinds(draws.between(max(2, options.fewest), options.objects)))
    order = draws.shuffled(range(len(original.objects)))
    one, other = order[:2]
    odd = draws.choice(order)
    attribute = draws.choice(("color", "shape", "size"))
    found = (
        _settled(lambda: _swapped(original, one, other), [], sampler),
        _settled(lambda: _turned(original, one, other), [one, other], sampler),
        _settled(lambda: _changed(original, odd, attribute, sampler), [odd] if attribute == "size" else [], sampler),
    )
    scenes = [original, *(scene for scene in found if scene is not None)]
    if len(scenes) < len(ROLES):
        return None
    orders = [order, order, [other, one, *order[2:]], order]  # what is turned is told from the other side
    return scenes, [describe(scene, at) for scene, at in zip(scenes, orders, strict=True)]


def _settled(make: Callable[[], Scene], moved: list[int], sampler: Sampler) -> Scene | None:
    """Returns a scene that could have been drawn for this split, or None if none is found soon.

    Args:
        make: Returns the scene, or draws one.
        moved: Objects that may be a pixel off.
        sampler: What could have drawn it.
    """
    for _ in range(_NUDGES if moved else 1):
        scene = make()
        nudges = {number: _nudged(scene.objects[number], sampler) for number in moved}
        scene = _with(scene, nudges)
        if _is_allowed(scene, sampler):
            return scene
    return None


def _nudged(item: SceneObject, sampler: Sampler) -> SceneObject:
    most = max(1, sampler.options.size // 64)
    across, down = sampler.draws.between(-most, most), sampler.draws.between(-most, most)
    left, top, right, bottom = item.box
    return item._replace(box=Box(left + across, top + down, right + across, bottom + down))


def _is_allowed(scene: Scene, sampler: Sampler) -> bool:
    """Returns whether a scene could have been drawn: its boxes lie as those of this split, and its kinds may meet."""
    kinds, boxes = scene.kinds, [item.box for item in scene.objects]
    size = sampler.options.size
    return (
        belongs_to(boxes, SPLIT)
        and len(set(kinds)) == len(kinds)
        and all(sampler.may_meet(kinds[: end + 1]) for end in range(len(kinds)))
        and all(fits(box, boxes[:number], size) for number, box in enumerate(boxes))
        and all(min(box) >= 0 and max(box) <= size for box in boxes)
    )


def _swapped(scene: Scene, one: int, other: int) -> Scene:
    """Returns the scene with the colours of two objects swapped."""
    first, second = scene.objects[one], scene.objects[other]
    return _with(
        scene,
        {
            one: first._replace(kind=first.kind._replace(color=second.kind.color)),
            other: second._replace(kind=second.kind._replace(color=first.kind.color)),
        },
    )


def _turned(scene: Scene, one: int, other: int) -> Scene:
    """Returns the scene with two objects in each other's place."""
    first, second = scene.objects[one], scene.objects[other]
    return _with(
        scene,
        {
            one: first._replace(box=_moved(first.box, second.box)),
            other: second._replace(box=_moved(second.box, first.box)),
        },
    )


def _changed(scene: Scene, number: int, attribute: str, sampler: Sampler) -> Scene:
    """Returns the scene with another colour, shape or size of one object."""
    item, draws = scene.objects[number], sampler.draws
    if attribute == "size":
        size = SIZES[1 - SIZES.index(item.size)]
        side = side_of(draws, size, sampler.options.size)
        return _with(scene, {number: item._replace(size=size, box=_moved(Box(0, 0, side, side), item.box))})
    names = tuple(COLORS) if attribute == "color" else SHAPES
    name = draws.choice([name for name in names if name != getattr(item.kind, attribute)])
    return _with(scene, {number: item._replace(kind=item.kind._replace(**{attribute: name}))})


def _moved(box: Box, place: Box) -> Box:
    """Returns a box of the size of `box` about the centre of `place`."""
    width, height = box.right - box.left, box.bottom - box.top
    left = (place.left + place.right - width) // 2
    top = (place.top + place.bottom - height) // 2
    return Box(left, top, left + width, top + height)


def _with(scene: Scene, changes: dict[int, SceneObject]) -> Scene:
    """Returns the scene with some objects replaced."""
    return Scene(tuple(changes.get(number, item) for number, item in enumerate(scene.objects)))
