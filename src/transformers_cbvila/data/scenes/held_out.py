"""Which kinds, and which pairs of kinds, are kept from training for `test_compositional`.

Colours and shapes are numbered 0 to 6, and what is held out does not change when all numbers x become ux + v (modulo
7). These maps turn any colour, any shape and any seen kind into any other. So nothing in a split is more frequent than
others of its sort, and a question's words say nothing about its answer: in "is there a red circle?", drawn from the
objects of a scene for "yes" and from those it lacks for "no", both answers are exactly as frequent.
"""

from functools import cache

from .words import COLORS, KINDS, SHAPES, Kind

_PRIME = 7
_COLOR_NUMBERS = {color: number for number, color in enumerate(COLORS)}
_SHAPE_NUMBERS = {shape: number for number, shape in enumerate(SHAPES)}
# Second kinds (colour and shape number) that are held out beside the kind (0, 1), and so which pairs altogether.
_HELD_OUT_BESIDE_0_1 = ((1, 0), (2, 3), (3, 2), (4, 6))


def is_held_out(kind: Kind) -> bool:
    """Returns whether a kind is never seen in training: 7 of 49, each colour and each shape once."""
    return _COLOR_NUMBERS[kind.color] == _SHAPE_NUMBERS[kind.shape]


SEEN = tuple(kind for kind in KINDS if not is_held_out(kind))
UNSEEN = tuple(kind for kind in KINDS if is_held_out(kind))


def is_held_out_pair(one: Kind, other: Kind) -> bool:
    """Returns whether two seen kinds are never seen together in training."""
    return other in held_out_partners(one)


@cache
def held_out_partners(kind: Kind) -> tuple[Kind, ...]:
    """Returns the seen kinds that are held out beside a seen kind."""
    return tuple(other for other in SEEN if other != kind and (_beside(kind, other) or _beside(other, kind)))


def _beside(first: Kind, second: Kind) -> bool:
    """Returns whether a map of those above turns `first` into (0, 1) and `second` into one of the table."""
    start = _COLOR_NUMBERS[first.color]
    inverse = pow(_SHAPE_NUMBERS[first.shape] - start, -1, _PRIME)
    color = (_COLOR_NUMBERS[second.color] - start) * inverse % _PRIME
    shape = (_SHAPE_NUMBERS[second.shape] - start) * inverse % _PRIME
    return (color, shape) in _HELD_OUT_BESIDE_0_1
