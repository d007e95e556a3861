"""Reads the texts of scenes and says whether they are true of objects; knows nothing of how these are made."""

import re
from itertools import product

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "black")
SHAPES = ("circle", "square", "triangle", "cross", "star", "ring", "diamond")
NUMBERS = {"no": 0, "one": 1, "two": 2, "three": 3, "four": 4}
_USUAL = {
    "to the left of": "left of",
    "to the right of": "right of",
    "over": "above",
    "under": "below",
    "disk": "circle",
    "disks": "circles",
    "box": "square",
    "boxes": "squares",
    "crosses": "crosss",
    "violet": "purple",
    "little": "small",
    "large": "big",
}
_NOUN = rf"(?:an?|the) (?:(?P<size>small|big) )?(?P<colour>{'|'.join(COLORS)}) (?P<shape>{'|'.join(SHAPES)})"
IMAGE = (0, 0, 64, 64)
_RELATION = r"(?P<relation>left of|right of|above|below)"


def noun(name):
    """The pattern of a noun phrase whose groups have the name in front."""
    return _NOUN.replace("?P<", f"?P<{name}_")


def usual(text):
    """A text with the usual words for what there are several words for."""
    for word in sorted(_USUAL, key=len, reverse=True):
        text = re.sub(rf"\b{word}\b", _USUAL[word], text)
    return text


def relation(one, other):
    """How the first of two boxes lies to the second."""
    (a, b, c, d), (e, f, g, h) = one, other
    across, down = (a + c) / 2 - (e + g) / 2, (b + d) / 2 - (f + h) / 2
    if abs(across) > abs(down):
        return "left of" if across < 0 else "right of"
    return "above" if down < 0 else "below"


def such(objects, match, name=""):
    """The objects that a noun phrase is about."""
    prefix = f"{name}_" if name else ""
    wanted = {key: match[prefix + key] for key in ("size", "colour", "shape") if match[prefix + key]}
    return [item for item in objects if all(item[key] == value for key, value in wanted.items())]


def clause_holds(clause, objects):
    """Whether one part of a caption is true."""
    if match := re.fullmatch(rf"{noun('a')} (?:is )?{_RELATION} {noun('b')}", clause):
        return any(
            relation(one["box"], other["box"]) == match["relation"]
            for one in such(objects, match, "a")
            for other in such(objects, match, "b")
        )
    if match := re.fullmatch(rf"{noun('a')} is (?P<is>small|big)", clause):
        return any(item["size"] == match["is"] for item in such(objects, match, "a"))
    if match := re.fullmatch(r"(one|two|three|four) (\w+)s \((.*)\)", clause):
        found = [item for item in objects if item["shape"] == match[2]]
        colors = re.findall(r"an? (\w+) one", match[3])
        return len(found) == NUMBERS[match[1]] == len(colors) and {item["colour"] for item in found} == set(colors)
    if match := re.fullmatch(r"(one|two|three|four) (\w+) shapes \((.*)\)", clause):
        found = [item for item in objects if item["colour"] == match[2]]
        shapes = re.findall(r"an? (\w+)", match[3])
        return len(found) == NUMBERS[match[1]] == len(shapes) and {item["shape"] for item in found} == set(shapes)
    if match := re.fullmatch(rf"{_NOUN} (?:is )?{_RELATION} the middle", clause):
        return any(relation(item["box"], IMAGE) == match["relation"] for item in such(objects, match))
    match = re.fullmatch(_NOUN, clause)
    assert match, clause
    return bool(such(objects, match))


def caption_holds(caption, objects):
    """Whether a caption is true of objects."""
    text = re.sub(r"^(there is|an image of) ", "", usual(caption))
    if match := re.fullmatch(r"(one|two|three|four) shapes?: (.*)", text):
        named = re.split(r", | and ", match[2])
        return len(objects) == NUMBERS[match[1]] == len(named) and all(clause_holds(name, objects) for name in named)
    return all(clause_holds(clause, objects) for clause in re.split(r" and (?![^(]*\))", text))


def statement_holds(text, objects):
    """Whether a hypothesis is true if these are all objects."""
    text = usual(text)
    if match := re.fullmatch(r"there is no (\w+) (\w+)", text):
        return not any((item["colour"], item["shape"]) == match.groups() for item in objects)
    if match := re.fullmatch(r"every (\w+) is (\w+)", text):
        colors = [item["colour"] for item in objects if item["shape"] == match[1]]
        return bool(colors) and all(color == match[2] for color in colors)
    if match := re.fullmatch(r"there (?:is|are) exactly (\w+) (\w+)", text):
        return number(objects, match[2]) == NUMBERS[match[1]]
    if match := re.fullmatch(r"there are more (\w+)s than (\w+)s", text):
        return number(objects, match[1]) > number(objects, match[2])
    return clause_holds(re.sub(r"^there is ", "", text), objects)


def label(text, objects, screen):
    """The label of a hypothesis about objects and something hidden."""
    worlds = [objects]
    if screen is not None:
        kinds = product(COLORS, SHAPES)
        worlds = [[*objects, {"colour": c, "shape": s, "size": "small", "box": screen}] for c, s in kinds]
    outcomes = {statement_holds(text, world) for world in worlds}
    return "neutral" if len(outcomes) == 2 else "entailment" if True in outcomes else "contradiction"


def pair_statement_holds(text, left, right):
    """Whether a statement is true of two images."""
    text = usual(text)
    if match := re.fullmatch(r"(both images|exactly one image) shows? (.*)", text):
        return clause_holds(match[2], left) + clause_holds(match[2], right) == (2 if match[1] == "both images" else 1)
    if match := re.fullmatch(r"in (both images|exactly one image) (.*)", text):
        return clause_holds(match[2], left) + clause_holds(match[2], right) == (2 if match[1] == "both images" else 1)
    if match := re.fullmatch(r"the left image shows (.*) and the right image shows (.*)", text):
        return clause_holds(match[1], left) and clause_holds(match[2], right)
    if match := re.fullmatch(r"the (left|right) image shows more (\w+)s than the (?:left|right) image", text):
        one, other = (left, right) if match[1] == "left" else (right, left)
        return number(one, match[2]) > number(other, match[2])
    match = re.fullmatch(r"(.*) in the two images together", text)
    return statement_holds(match[1], left + right)


def number(objects, shape):
    """How many objects have a shape, given in the singular or the plural."""
    return sum(item["shape"] == (shape if shape in SHAPES else shape.removesuffix("s")) for item in objects)


def answer(question, objects):
    """The answer to a question."""
    text = usual(question)
    if match := re.fullmatch(r"how many (\w+) shapes are there\?", text):
        return str(sum(item["colour"] == match[1] for item in objects))
    if match := re.fullmatch(r"how many (\w+)s are there\?", text):
        return str(number(objects, match[1]))
    if match := re.fullmatch(r"are there more (\w+)s than (\w+)s\?", text):
        return said(number(objects, match[1]) > number(objects, match[2]))
    if match := re.fullmatch(r"is there an? (\w+) (\w+)\?", text):
        return said(any(item["colour"] == match[1] and match[2] in (item["shape"], "shape") for item in objects))
    if match := re.fullmatch(r"is there an? (\w+)\?", text):
        return said(number(objects, match[1]) > 0)
    if match := re.fullmatch(r"what color is the (\w+)\?", text):
        (found,) = [item for item in objects if item["shape"] == match[1]]
        return found["colour"]
    if match := re.fullmatch(r"what shape is the (\w+) one\?", text):
        (found,) = [item for item in objects if item["colour"] == match[1]]
        return found["shape"]
    if match := re.fullmatch(rf"what size is {noun('a')}\?", text):
        (found,) = such(objects, match, "a")
        return found["size"]
    pair = re.fullmatch(rf"(?:is|where is) {noun('a')}(.*?) {noun('b')}\?", text)
    (one,), (other,) = such(objects, pair, "a"), such(objects, pair, "b")
    name = relation(one["box"], other["box"])
    if pair[4] == ", seen from":
        return name.removesuffix(" of")
    if pair[4] == " bigger than":
        return said((one["size"], other["size"]) == ("big", "small"))
    return said(pair[4] == f" {name}")


def said(yes):
    return "yes" if yes else "no"
