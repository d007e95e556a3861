"""Questions about a scene, in which the words say nothing of the answer.

The first one counts or compares: its words and then its answer are drawn, and a scene of which both hold. The others
are about whatever that scene has. Of what is asked with yes or no, the answer is drawn first and then the objects:
those of the scene for yes, those that it lacks for no. As no colour, shape or kind is more frequent than another
(`held_out.py`), neither is an answer to the same words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .captions import plural
from .held_out import SEEN, UNSEEN, is_held_out, is_held_out_pair
from .sampling import Sampler
from .scene import Scene, SceneObject, relation
from .words import COLORS, OPPOSITE, RELATIONS, SHAPES, Kind, with_article

QUESTION_TYPES = ("count", "comparison", "existence", "attribute", "relation")


class Question(NamedTuple):
    """A question with its answer.

    Attributes:
        text: Its words.
        answer: A word, or a number in digits.
        type: One of `QUESTION_TYPES`.
    """

    text: str
    answer: str
    type: str


def scene_with_questions(sampler: Sampler) -> tuple[Scene, list[Question]]:
    """Returns a scene and questions about it, one or two of each type, or the one that the options ask for."""
    first, kinds, avoid = sampler.draws.choice(_FIRST)(sampler)
    options = sampler.options
    fewest = max(options.fewest, sampler.fewest(kinds))
    number = sampler.draws.between(min(fewest, options.objects), options.objects)
    kinds = sampler.filled(kinds, number, lambda kind: not avoid(kind))
    scene = sampler.scene(sampler.draws.shuffled(kinds))
    if options.questions == "where":
        return scene, [_where(*sampler.draws.choice(_pairs(sampler, scene)))]
    return scene, [first, *_about(sampler, scene)]


Planned = tuple[Question, list[Kind], Callable[[Kind], bool]]


def _count_by(sampler: Sampler, by: str) -> Planned:
    """Returns a question about a number, the kinds to be counted and which others would be counted with them."""
    draws = sampler.draws
    name = draws.choice(SHAPES if by == "shape" else tuple(COLORS))
    counted = sampler.filled([], draws.between(0, _most(sampler)), lambda kind: getattr(kind, by) == name)
    text = f"how many {plural(name) if by == 'shape' else f'{name} shapes'} are there?"
    return Question(text, str(len(counted)), "count"), counted, lambda kind: getattr(kind, by) == name


def _most(sampler: Sampler) -> int:
    """Returns how many objects a first question may be about; one more may make a new pair."""
    return max(sampler.options.objects - (sampler.novelty == "pair"), 1)


def _count_shapes(sampler: Sampler) -> Planned:
    return _count_by(sampler, "shape")


def _count_colors(sampler: Sampler) -> Planned:
    return _count_by(sampler, "color")


def _more(sampler: Sampler) -> Planned:
    draws, most = sampler.draws, _most(sampler)
    one, other = draws.shuffled(SHAPES)[:2]
    yes = draws.chance(0.5)
    able = [(a, b) for a in range(most + 1) for b in range(most + 1 - a) if a + b and (a > b) == yes]
    first, second = draws.choice(able)
    kinds = sampler.filled([], first, lambda kind: kind.shape == one)
    kinds = sampler.filled(kinds, first + second, lambda kind: kind.shape == other)
    text = f"are there more {plural(one)} than {plural(other)}?"
    return Question(text, _said(yes), "comparison"), kinds, lambda kind: kind.shape in (one, other)


def _about(sampler: Sampler, scene: Scene) -> list[Question]:
    """Returns questions about whatever a scene has."""
    asked = [_is_there_kind(sampler, scene), _is_there(sampler, scene), *_attributes(sampler, scene)]
    if len(scene.objects) > 1:
        asked += [_relation(sampler, scene), *_bigger(sampler, scene)]
    return asked


def _is_there_kind(sampler: Sampler, scene: Scene) -> Question:
    """Returns the question for a colour with a shape. Half of those that are absent have both words in the scene."""
    draws = sampler.draws
    is_new = sampler.novelty == "kind"
    yes, kinds = draws.chance(0.5), scene.kinds
    if yes:
        able = [kind for kind in kinds if is_held_out(kind) == is_new]
    else:
        able = [kind for kind in (UNSEEN if is_new else SEEN) if kind not in kinds]
        colors, shapes = {kind.color for kind in kinds}, {kind.shape for kind in kinds}
        mixed = [kind for kind in able if kind.color in colors and kind.shape in shapes]
        able = mixed if mixed and draws.chance(0.5) else able
    return Question(f"is there {with_article(_called(draws.choice(able)))}?", _said(yes), "existence")


def _is_there(sampler: Sampler, scene: Scene) -> Question:
    """Returns the question for a shape or for a colour."""
    draws, (by, names) = sampler.draws, sampler.draws.choice((("shape", SHAPES), ("color", tuple(COLORS))))
    present = {getattr(kind, by) for kind in scene.kinds}
    yes = draws.chance(0.5)
    name = draws.choice([name for name in names if (name in present) == yes])
    noun = name if by == "shape" else f"{name} shape"
    return Question(f"is there {with_article(noun)}?", _said(yes), "existence")


def _attributes(sampler: Sampler, scene: Scene) -> list[Question]:
    """Returns two questions for a colour, a shape or a size; fewer if nothing can be named by its shape or colour."""
    draws, objects = sampler.draws, _new_ones(sampler, scene)
    shapes, colors = [kind.shape for kind in scene.kinds], [kind.color for kind in scene.kinds]
    asked = [_size(draws.choice(objects))]
    if able := [item for item in objects if shapes.count(item.kind.shape) == 1]:
        kind = draws.choice(able).kind
        asked.append(Question(f"what color is the {kind.shape}?", kind.color, "attribute"))
    if able := [item for item in objects if colors.count(item.kind.color) == 1]:
        kind = draws.choice(able).kind
        asked.append(Question(f"what shape is the {kind.color} one?", kind.shape, "attribute"))
    return draws.shuffled(asked)[:2]


def _size(item: SceneObject) -> Question:
    return Question(f"what size is the {_called(item.kind)}?", item.size, "attribute")


def _relation(sampler: Sampler, scene: Scene) -> Question:
    """Returns a question for how one object lies to another; half with yes or no, half without."""
    draws = sampler.draws
    one, other = draws.choice(_pairs(sampler, scene))
    if draws.chance(0.5):
        return _where(one, other)
    name = relation(one.box, other.box)
    yes = draws.chance(0.5)
    if not yes:
        sideways = [side for side in RELATIONS if side not in (name, OPPOSITE[name])]
        name = OPPOSITE[name] if draws.chance(0.5) else draws.choice(sideways)
    side = f"{name} of" if name in ("left", "right") else name
    return Question(f"is the {_called(one.kind)} {side} the {_called(other.kind)}?", _said(yes), "relation")


def _where(one: SceneObject, other: SceneObject) -> Question:
    """Returns the question for the side of an object on which another lies."""
    asked = f"where is the {_called(one.kind)}, seen from the {_called(other.kind)}?"
    return Question(asked, relation(one.box, other.box), "relation")


def _bigger(sampler: Sampler, scene: Scene) -> list[Question]:
    """Returns a question for the bigger of two objects, if two have different sizes."""
    able = [(one, other) for one, other in _pairs(sampler, scene) if one.size != other.size]
    if not able:
        return []
    one, other = sampler.draws.shuffled(sampler.draws.choice(able))
    text = f"is the {_called(one.kind)} bigger than the {_called(other.kind)}?"
    return [Question(text, _said(one.size == "big"), "comparison")]


def _pairs(sampler: Sampler, scene: Scene) -> list[tuple[SceneObject, SceneObject]]:
    """Returns the pairs of objects, both ways; in a row with something new, those with it, if any."""
    pairs = [(one, other) for one in scene.objects for other in scene.objects if one is not other]
    return [pair for pair in pairs if sampler.is_new([item.kind for item in pair])] or pairs


def _new_ones(sampler: Sampler, scene: Scene) -> list[SceneObject]:
    """Returns the objects of new kinds, or all where there are none."""
    new = [item for item in scene.objects if is_held_out(item.kind)]
    if sampler.novelty == "pair":
        new = [item for item in scene.objects if any(is_held_out_pair(item.kind, kind) for kind in scene.kinds)]
    return new or list(scene.objects)


def _called(kind: Kind) -> str:
    return f"{kind.color} {kind.shape}"


def _said(yes: bool) -> str:
    return "yes" if yes else "no"


_FIRST: tuple[Callable[[Sampler], Planned], ...] = (_count_shapes, _count_colors, _more)
