"""Draws scenes: which kinds a split lets meet, which objects a scene must have, and where these lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .draws import Draws
from .held_out import SEEN, UNSEEN, held_out_partners, is_held_out, is_held_out_pair
from .layout import Arrangement, place
from .options import SceneOptions
from .scene import Scene, SceneObject
from .words import SIZES, Kind

_GUESSES = 4  # at a kind before all are looked through, which takes longer
NOVELTIES = ("kind", "pair")  # what is new in a row of test_compositional


class Wanted(NamedTuple):
    """What a scene shall have.

    Attributes:
        kinds: Objects.
        avoid: Which kinds it shall not have beside these.
        screen: Whether something is hidden.
        arrangement: How one of the kinds lies to another; a kind that is not among `kinds` is the hidden object.
    """

    kinds: Sequence[Kind]
    avoid: Callable[[Kind], bool]
    screen: bool = False
    arrangement: tuple[Kind, str, Kind] | None = None


@dataclass(frozen=True)
class Sampler:
    """Draws scenes of one row.

    Args:
        draws: The row's draws.
        options: Options of the source.
        split: The split.
        novelty: In `test_compositional`, what training never shows: a `kind` of object, or a `pair` of kinds.
    """

    draws: Draws
    options: SceneOptions
    split: str
    novelty: str | None = None

    def kinds(self, number: int) -> list[Kind]:
        """Returns so many different kinds that may meet; with something new among them where the row has that."""
        return self.filled([], number)

    def filled(self, kinds: Sequence[Kind], number: int, allowed: Callable[[Kind], bool] | None = None) -> list[Kind]:
        """Returns kinds with others after them, `number` in all, or fewer if no kind is left that may meet the others.

        Args:
            kinds: The first ones.
            number: How many there should be.
            allowed: Which kinds may be added.
        """
        found = list(kinds)
        while len(found) < number:
            kind = self._another(found, self._new(found), allowed) or self._another(found, SEEN, allowed)
            if kind is None:
                break
            found.append(kind)
        return found

    def several(self, shape: str, number: int) -> list[Kind]:
        """Returns so many kinds of a shape."""
        return self.filled([], number, lambda kind: kind.shape == shape)

    def _another(
        self, kinds: list[Kind], candidates: Sequence[Kind], allowed: Callable[[Kind], bool] | None
    ) -> Kind | None:
        """Returns one of the candidates that may be added to the kinds, None if there is none."""

        def is_able(kind: Kind) -> bool:
            return kind not in kinds and (allowed is None or allowed(kind)) and self.may_meet([*kinds, kind])

        for _ in range(_GUESSES if candidates else 0):
            kind = self.draws.choice(candidates)
            if is_able(kind):
                return kind
        able = [kind for kind in candidates if is_able(kind)]
        return self.draws.choice(able) if able else None

    def may_meet(self, kinds: Sequence[Kind]) -> bool:
        """Returns whether a scene of this split may have the last of these kinds beside the others."""
        last = kinds[-1]
        if self.novelty is None:
            return not is_held_out(last) and not any(is_held_out_pair(last, kind) for kind in kinds[:-1])
        return self.novelty == "kind" or not is_held_out(last)

    def is_new(self, kinds: Sequence[Kind]) -> bool:
        """Returns whether these kinds have what the row is to have new."""
        if self.novelty == "pair":
            return any(is_held_out_pair(one, other) for i, one in enumerate(kinds) for other in kinds[:i])
        return any(map(is_held_out, kinds))

    def fewest(self, kinds: Sequence[Kind]) -> int:
        """Returns how many objects a scene with these kinds has at least, for something new to be among them."""
        if self.novelty is None or self.is_new(kinds):
            return max(len(kinds), 1)
        return max(len(kinds) + 1, 2 if self.novelty == "pair" else 1)

    def _new(self, kinds: Sequence[Kind]) -> Sequence[Kind]:
        """Returns the kinds that would make these the ones that a row of its novelty has; none if they are."""
        if self.novelty is None or self.is_new(kinds):
            return ()
        if self.novelty == "kind":
            return UNSEEN
        return [other for kind in kinds for other in held_out_partners(kind)]

    def scene(self, kinds: Sequence[Kind], screen: bool = False, arrangement: Arrangement | None = None) -> Scene:
        """Returns a scene with objects of these kinds, in this order, each as often small as big.

        Args:
            kinds: The kinds.
            screen: Whether something is hidden.
            arrangement: How two of the objects lie; the screen has the number after the last object's.
        """
        sizes = [self.draws.choice(SIZES) for _ in kinds]
        all_sizes = [*sizes, *["screen"] * screen]
        boxes = place(self.draws, all_sizes, self.options.size, self.split, arrangement)
        objects = tuple(SceneObject(*item) for item in zip(kinds, sizes, boxes, strict=False))
        return Scene(objects, boxes[-1] if screen else None)

    def wanted_scene(self, wanted: Wanted) -> Scene | None:
        """Returns a scene that has what is wanted, and others beside it; None if its kinds may not meet here."""
        kinds = list(dict.fromkeys(wanted.kinds))
        room = self.options.objects - wanted.screen
        if len(kinds) > room or not all(self.may_meet(kinds[: end + 1]) for end in range(len(kinds))):
            return None
        number = self.draws.between(min(self.fewest(kinds), max(room, 1)), max(room, 1))
        kinds = self.filled(kinds, number, lambda kind: not wanted.avoid(kind))
        if not kinds:
            return None
        kinds = self.draws.shuffled(kinds)
        return self.scene(kinds, wanted.screen, _numbered(wanted, kinds))


def _numbered(wanted: Wanted, kinds: list[Kind]) -> Arrangement | None:
    """Returns the wanted arrangement by the numbers of these kinds."""
    if wanted.arrangement is None:
        return None
    first, name, second = wanted.arrangement
    at = {kind: number for number, kind in enumerate(kinds)}
    return Arrangement(at.get(first, len(kinds)), name, at.get(second, len(kinds)))
