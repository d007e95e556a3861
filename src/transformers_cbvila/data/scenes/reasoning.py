"""Statements about two images, in the form of NLVR2.

A statement is asked of four pairs of images, of which it is true of two: its words say nothing of the label.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from .captions import plural
from .sampling import Sampler, Wanted
from .scene import Scene, SceneObject
from .statements import Exactly, Related, Shows, Statement, a, count
from .words import RELATIONS, Kind

PAIRS_PER_STATEMENT = 4
_MOST_COUNTED = 3

Objects = Sequence[SceneObject]


class PairStatement(NamedTuple):
    """A statement about a left and a right image.

    Attributes:
        text: Its words.
        holds: Whether it is true of the objects of both.
        plan: Draws what both shall have for the statement to be true, or false, or to be likely to.
    """

    text: str
    holds: Callable[[Objects, Objects], bool]
    plan: Callable[[Sampler, bool], tuple[Wanted, Wanted]]


def pair_statement(sampler: Sampler) -> PairStatement:
    """Returns a statement."""
    return sampler.draws.choice(_STATEMENTS)(sampler)


def pair_of_scenes(sampler: Sampler, statement: PairStatement, label: bool) -> tuple[Scene, Scene]:
    """Returns a left and a right scene of which a statement is true or, as `label` has it, false."""
    while True:
        left, right = map(sampler.wanted_scene, statement.plan(sampler, label))
        if left is not None and right is not None and statement.holds(left.objects, right.objects) == label:
            return left, right


def _shown(sampler: Sampler) -> PairStatement:
    kind, other = sampler.kinds(2)
    number = sampler.draws.between(1, 2)
    text = f"both images show {a(kind)}" if number == 2 else f"exactly one image shows {a(kind)}"

    def avoid(added: Kind) -> bool:
        return added == kind

    def decoy(sampler: Sampler) -> Wanted:
        mixed = [Kind(kind.color, other.shape), Kind(other.color, kind.shape)]
        return Wanted(mixed if sampler.draws.chance(0.5) else [], avoid)

    return _in_images(text, Shows(kind), number, Wanted([kind], avoid), decoy)


def _related(sampler: Sampler) -> PairStatement:
    one, other = sampler.kinds(2)
    statement = Related(one, sampler.draws.choice(RELATIONS), other)
    number = sampler.draws.between(1, 2)
    text = f"in {'both images' if number == 2 else 'exactly one image'} {statement}"

    def avoid(added: Kind) -> bool:
        return added in (one, other)

    def decoy(sampler: Sampler) -> Wanted:
        if sampler.draws.chance(0.25):
            return Wanted([Kind(one.color, other.shape), Kind(other.color, one.shape)], avoid)
        name = sampler.draws.choice([name for name in RELATIONS if name != statement.relation])
        return Wanted([one, other], avoid, arrangement=(one, name, other))

    seen = Wanted([one, other], avoid, arrangement=(one, statement.relation, other))
    return _in_images(text, statement, number, seen, decoy)


def _in_images(
    text: str, statement: Statement, number: int, seen: Wanted, decoy: Callable[[Sampler], Wanted]
) -> PairStatement:
    """Returns the statement that something is true of so many of the two images.

    Args:
        text: Its words.
        statement: What is true of them.
        number: Of how many.
        seen: What an image has of which it is true.
        decoy: Draws what an image has of which it is not.
    """

    def holds(left: Objects, right: Objects) -> bool:
        return statement.holds(left) + statement.holds(right) == number

    def plan(sampler: Sampler, label: bool) -> tuple[Wanted, Wanted]:
        true_of = number if label else sampler.draws.choice([n for n in range(3) if n != number])
        left, right = sampler.draws.shuffled([seen if n < true_of else decoy(sampler) for n in range(2)])
        return left, right

    return PairStatement(text, holds, plan)


def _sides(sampler: Sampler) -> PairStatement:
    one, other = sampler.kinds(2)

    def holds(left: Objects, right: Objects) -> bool:
        return Shows(one).holds(left) and Shows(other).holds(right)

    def avoid(added: Kind) -> bool:
        return added in (one, other)

    def plan(sampler: Sampler, label: bool) -> tuple[Wanted, Wanted]:
        swapped = [Kind(one.color, other.shape)], [Kind(other.color, one.shape)]
        wrong: tuple[tuple[list[Kind], list[Kind]], ...] = (([other], [one]), swapped, ([one], []), ([], [other]))
        left, right = ([one], [other]) if label else sampler.draws.choice(wrong)
        return Wanted(left, avoid), Wanted(right, avoid)

    return PairStatement(f"the left image shows {a(one)} and the right image shows {a(other)}", holds, plan)


def _more(sampler: Sampler) -> PairStatement:
    shape = sampler.kinds(1)[0].shape
    one, other = sampler.draws.shuffled(("left", "right"))

    def holds(left: Objects, right: Objects) -> bool:
        numbers = {"left": count(left, shape), "right": count(right, shape)}
        return numbers[one] > numbers[other]

    def plan(sampler: Sampler, label: bool) -> tuple[Wanted, Wanted]:
        numbers = range(sampler.options.objects + 1)
        able = [(first, second) for first in numbers for second in numbers if (first > second) == label]
        first, second = sampler.draws.choice(able)
        counts = {one: first, other: second}
        return _counted(sampler, shape, counts["left"]), _counted(sampler, shape, counts["right"])

    return PairStatement(f"the {one} image shows more {plural(shape)} than the {other} image", holds, plan)


def _total(sampler: Sampler) -> PairStatement:
    shape = sampler.kinds(1)[0].shape
    number = sampler.draws.between(1, _MOST_COUNTED)
    statement = Exactly(number, shape)

    def holds(left: Objects, right: Objects) -> bool:
        return statement.holds([*left, *right])

    def plan(sampler: Sampler, label: bool) -> tuple[Wanted, Wanted]:
        most = sampler.options.objects
        able = [n for n in range(min(_MOST_COUNTED + 1, 2 * most) + 1) if (n == number) == label]
        shown = sampler.draws.choice(able)
        left = sampler.draws.between(max(0, shown - most), min(shown, most))
        return _counted(sampler, shape, left), _counted(sampler, shape, shown - left)

    return PairStatement(f"{statement} in the two images together", holds, plan)


def _counted(sampler: Sampler, shape: str, number: int) -> Wanted:
    """Returns so many objects of a shape, beside others of other shapes."""
    return Wanted(sampler.several(shape, number), lambda added: added.shape == shape)


_STATEMENTS = (_shown, _related, _sides, _more, _total)
