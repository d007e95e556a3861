"""Whether a caption, such as one that a model wrote, is true of the objects of a scene."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .scene import Box, relation
from .words import COLORS, MIDDLE, NUMBERS, RELATIONS, SHAPES, SIZES, SYNONYMS

Objects = Sequence[Mapping[str, Any]]

_FIELDS = {"shape", "colour", "size", "box"}  # of an object, as rows have it
_BEGINNING = re.compile(r"^(?:there is|an image of) ")
_RELATIONS = {SYNONYMS[name][0]: name for name in RELATIONS}
_COLOR, _SHAPE = "|".join(COLORS), "|".join(SHAPES)
_PHRASE = rf"(?:a|an|the) (?:({'|'.join(SIZES)}) )?({_COLOR}) ({_SHAPE})"
_RELATION = rf"(?:is )?({'|'.join(_RELATIONS)})"
_ONE = re.compile(_PHRASE)
_SIZE = re.compile(rf"{_PHRASE} is ({'|'.join(SIZES)})")
_TWO = re.compile(rf"{_PHRASE} {_RELATION} {_PHRASE}")
_PLACE = re.compile(rf"{_PHRASE} {_RELATION} {MIDDLE}")
_NUMBER = "|".join(list(NUMBERS)[1:])
_COUNT = re.compile(rf"({_NUMBER}) (?:({_SHAPE})(?:s|es)|({_COLOR}) shapes) \((.*)\)")
_ALL = re.compile(rf"({_NUMBER}) shapes?: (.*)")


def has_truth(objects: Any) -> bool:
    """Returns whether a row's `objects` are those of a scene."""
    return isinstance(objects, Sequence) and all(isinstance(o, Mapping) and o.keys() >= _FIELDS for o in objects)


def is_true(caption: str, objects: Objects, size: int) -> bool:
    """Returns whether everything that a caption says is true.

    Args:
        caption: The caption.
        objects: All objects of the scene, as rows have them.
        size: Width and height of the image in pixels.

    Returns:
        False also for a text that is no caption of scenes, and says nothing that could be checked.
    """
    text = _BEGINNING.sub("", _usual_words(caption))
    if counted := _ALL.fullmatch(text):
        phrases = re.split(r", | and ", counted[2])
        named = {_kind(match) for phrase in phrases if (match := _ONE.fullmatch(phrase))}
        number = NUMBERS.index(counted[1])
        return len(objects) == len(named) == number and all(_clause_holds(p, objects, size) for p in phrases)
    return all(_clause_holds(clause, objects, size) for clause in re.split(r" and (?![^(]*\))", text))


def _usual_words(text: str) -> str:
    """Returns a text with the first of the words for what there are several words for."""
    text = " ".join(text.lower().rstrip(". ").split())
    for first, *others in SYNONYMS.values():
        for other in others:
            text = re.sub(rf"\b{other}(?=\b|s\b|es\b)", first, text)
    return text.replace("squarees", "squares")


def _clause_holds(clause: str, objects: Objects, size: int) -> bool:
    """Returns whether one part of a caption is true."""
    if match := _TWO.fullmatch(clause):
        one, other = _such(objects, *match.group(1, 2, 3)), _such(objects, *match.group(5, 6, 7))
        return any(relation(a, b) == _RELATIONS[match[4]] for a in one for b in other)
    if match := _PLACE.fullmatch(clause):
        placed = _such(objects, *match.group(1, 2, 3))
        return any(relation(box, Box(0, 0, size, size)) == _RELATIONS[match[4]] for box in placed)
    if match := _SIZE.fullmatch(clause):
        return match[1] in (None, match[4]) and bool(_such(objects, match[4], match[2], match[3]))
    if match := _COUNT.fullmatch(clause):
        return _count_holds(match, objects)
    match = _ONE.fullmatch(clause)
    return match is not None and bool(_such(objects, *match.group(1, 2, 3)))


def _count_holds(match: re.Match[str], objects: Objects) -> bool:
    """Returns whether "two circles (a red one and a blue one)" or "two red shapes (a circle and a ring)" is true."""
    number, shape, color, listed = match.groups()
    if shape is not None:
        found = [item["colour"] for item in objects if item["shape"] == shape]
        named = re.findall(rf"\ban? ({_COLOR}) one\b", listed)
    else:
        found = [item["shape"] for item in objects if item["colour"] == color]
        named = re.findall(rf"\ban? ({_SHAPE})\b", listed)
    return len(found) == NUMBERS.index(number) and sorted(found) == sorted(named)


def _such(objects: Objects, size: str | None, color: str, shape: str) -> list[Box]:
    """Returns the boxes of the objects that a phrase is about."""
    return [
        Box(*item["box"])
        for item in objects
        if (item["colour"], item["shape"]) == (color, shape) and size in (None, item["size"])
    ]


def _kind(match: re.Match[str]) -> tuple[str, str]:
    return match[2], match[3]
