"""Phrases that captions are made of, with synonyms."""

from .draws import Draws
from .words import SYNONYMS, Kind, with_article

_SYNONYM = 0.25  # how often another word than the usual one is taken


def word(name: str, draws: Draws) -> str:
    """Returns the usual word for a colour, shape, size or relation, or sometimes another one."""
    words = SYNONYMS.get(name)
    if words is None:
        return name
    return words[1] if draws.chance(_SYNONYM) else words[0]


def noun_phrase(kind: Kind, draws: Draws, size: str | None = None) -> str:
    """Returns "red circle" or, with a size, "a big red circle"."""
    phrase = f"{word(kind.color, draws)} {word(kind.shape, draws)}"
    return phrase if size is None else f"a {word(size, draws)} {phrase}"


def related(first: str, relation: str, second: str, draws: Draws, may_be_sentence: bool = True) -> str:
    """Returns "a red circle left of a blue square" or, as a sentence, "a red circle is left of a blue square"."""
    verb = " is " if may_be_sentence and draws.chance(_SYNONYM) else " "
    return f"{first}{verb}{word(relation, draws)} {second}"


def indefinite(kind: Kind, draws: Draws) -> str:
    """Returns "a red circle"."""
    return with_article(noun_phrase(kind, draws))
