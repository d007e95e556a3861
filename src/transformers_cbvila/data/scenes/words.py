"""What objects in scenes can be, and the words for it.

Texts are in lower case and American spelling, as easy-VQA's.
"""

from typing import NamedTuple

COLORS = {
    "red": (220, 40, 40),
    "orange": (250, 150, 30),
    "yellow": (245, 220, 50),
    "green": (50, 165, 70),
    "blue": (45, 90, 215),
    "purple": (140, 60, 175),
    "black": (25, 25, 25),
}
SHAPES = ("circle", "square", "triangle", "cross", "star", "ring", "diamond")
SIZES = ("small", "big")
RELATIONS = ("left", "right", "above", "below")
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
MIDDLE = "the middle"  # of the image, to which captions of places relate an object
NUMBERS = ("no", "one", "two", "three", "four")

# The first word is used in questions and answers; captions use all of them.
SYNONYMS = {
    "circle": ("circle", "disk"),
    "square": ("square", "box"),
    "purple": ("purple", "violet"),
    "small": ("small", "little"),
    "big": ("big", "large"),
    "left": ("left of", "to the left of"),
    "right": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
RELATION_WORDS = frozenset(word for name in RELATIONS for phrase in SYNONYMS[name] for word in phrase.split()) - {
    "of",
    "to",
    "the",
}


class Kind(NamedTuple):
    """A colour and a shape. No two objects of a scene have the same kind, so that "the red circle" is one object."""

    color: str
    shape: str


KINDS = tuple(Kind(color, shape) for color in COLORS for shape in SHAPES)


def with_article(phrase: str) -> str:
    """Returns "a red circle" or "an orange circle"."""
    return f"an {phrase}" if phrase[0] in "aeiou" else f"a {phrase}"


def listed_in_words(phrases: list[str]) -> str:
    """Returns "a, b and c"."""
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
