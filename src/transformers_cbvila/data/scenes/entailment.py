"""Entailment: a hypothesis about an image in which something may be hidden.

A hypothesis is drawn first, and then three scenes: one by which it is entailed, one that leaves it open and one that
contradicts it. So its words say nothing of the label. See `judging.py` for what the labels mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .judging import judge
from .sampling import Sampler, Wanted
from .scene import Scene
from .statements import Every, Exactly, Lacks, More, Related, Shows, Statement
from .words import RELATIONS, SHAPES, Kind

_MOST_COUNTED = 2
_SCREENED = 0.7  # of scenes in which a screen changes nothing, so that one does not give neutral away

Planner = Callable[[Sampler, str], Wanted]


class Hypothesis(NamedTuple):
    """What is said of an image.

    Attributes:
        statement: What is said.
        plan: Draws what a scene shall have for a label to hold, or to be likely to.
    """

    statement: Statement
    plan: Planner


def draw_hypothesis(sampler: Sampler) -> Hypothesis:
    """Returns a hypothesis."""
    return Hypothesis(*sampler.draws.choice(_HYPOTHESES)(sampler))


def draw_premise(sampler: Sampler, hypothesis: Hypothesis, label: str) -> Scene:
    """Returns a scene of which a label of the hypothesis holds."""
    while True:
        scene = sampler.wanted_scene(hypothesis.plan(sampler, label))
        if scene is not None and judge(hypothesis.statement, scene) == label:
            return scene


def _shows(sampler: Sampler) -> tuple[Statement, Planner]:
    kind, other = sampler.kinds(2)
    return Shows(kind), lambda sampler, label: _presence(
        sampler, kind, other, label == "entailment", label == "neutral"
    )


def _lacks(sampler: Sampler) -> tuple[Statement, Planner]:
    kind, other = sampler.kinds(2)
    return Lacks(kind), lambda sampler, label: _presence(
        sampler, kind, other, label == "contradiction", label == "neutral"
    )


def _presence(sampler: Sampler, kind: Kind, other: Kind, visible: bool, hidden: bool) -> Wanted:
    """Returns what a scene has in which a kind is visible or, without that, may be hidden or is absent."""
    draws = sampler.draws
    if visible:
        return Wanted([kind], lambda added: False, screen=draws.chance(_SCREENED))
    # an object of the colour and one of the shape, so that both words are seen
    decoys = [Kind(kind.color, other.shape), Kind(other.color, kind.shape)] if draws.chance(0.5) else []
    return Wanted(decoys, lambda added: added == kind, screen=hidden)


def _every(sampler: Sampler) -> tuple[Statement, Planner]:
    kind = sampler.kinds(1)[0]

    def plan(sampler: Sampler, label: str) -> Wanted:
        draws = sampler.draws
        if label == "contradiction":
            odd = sampler.filled([], 1, lambda added: added.shape == kind.shape and added != kind)
            return Wanted([*odd, *[kind] * draws.chance(0.5)], lambda added: False, screen=draws.chance(_SCREENED))
        return Wanted([kind], lambda added: added.shape == kind.shape, screen=label == "neutral")

    return Every(kind), plan


def _related(sampler: Sampler) -> tuple[Statement, Planner]:
    one, other = sampler.kinds(2)
    name = sampler.draws.choice(RELATIONS)

    def plan(sampler: Sampler, label: str) -> Wanted:
        draws = sampler.draws
        if label == "neutral":
            seen = draws.choice((one, other))
            return Wanted([seen], lambda added: added in (one, other), True, (one, name, other))
        if label == "contradiction" and draws.chance(0.25):
            return Wanted([Kind(one.color, other.shape), Kind(other.color, one.shape)], lambda added: False)
        lies = name if label == "entailment" else draws.choice([word for word in RELATIONS if word != name])
        return Wanted([one, other], lambda added: False, draws.chance(_SCREENED), (one, lies, other))

    return Related(one, name, other), plan


def _exactly(sampler: Sampler) -> tuple[Statement, Planner]:
    most = sampler.options.objects
    number = sampler.draws.between(1, min(_MOST_COUNTED, most - 1))
    shape = sampler.kinds(1)[0].shape

    def plan(sampler: Sampler, label: str) -> Wanted:
        # with something hidden there may be one more than are seen
        numbers = [
            (seen, screen)
            for screen in (False, True)
            for seen in range(most - screen + 1)
            if _label(number in (seen, seen + screen), seen == number and not screen) == label
        ]
        seen, screen = sampler.draws.choice(numbers)
        return Wanted(sampler.several(shape, seen), lambda added: added.shape == shape, screen)

    return Exactly(number, shape), plan


def _more(sampler: Sampler) -> tuple[Statement, Planner]:
    most = sampler.options.objects
    first = sampler.kinds(1)[0].shape
    second = sampler.draws.choice([shape for shape in SHAPES if shape != first])

    def plan(sampler: Sampler, label: str) -> Wanted:
        # a hidden object may add to either
        numbers = [
            (ones, others, screen)
            for screen in (False, True)
            for ones in range(most - screen + 1)
            for others in range(most - screen - ones + 1)
            if _label(ones + screen > others, ones > others + screen) == label
        ]
        ones, others, screen = sampler.draws.choice(numbers)
        kinds = [*sampler.several(first, ones), *sampler.several(second, others)]
        return Wanted(kinds, lambda added: added.shape in (first, second), screen)

    return More(first, second), plan


def _label(possible: bool, certain: bool) -> str:
    """Returns the label of what can be true, or has to be."""
    return "entailment" if certain else "neutral" if possible else "contradiction"


_HYPOTHESES = (_shows, _lacks, _every, _related, _exactly, _more)
