"""Facts that the questions and answers of an easy-VQA image imply, and the captions that state them.

Every image shows exactly one shape in one colour. So a known shape rules out the other shapes, a question that
presupposes something ("what color is the circle?") asserts it, and if all but one of a closed set are ruled out, the
last one holds. Attributes that no question determines stay unknown; the pixels are not read.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

SHAPES = ("circle", "rectangle", "triangle")
COLORS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")

FULL_CAPTIONS = (
    "a {color} {shape}",
    "the {color} {shape}",
    "there is a {color} {shape}",
    "there is a {color} {shape} in the image",
    "the image contains a {color} {shape}",
    "a {color} {shape} is present",
    "an image of a {color} {shape}",
    "the {shape} is {color}",
    "the color of the {shape} is {color}",
    "the shape is a {color} {shape}",
)
ONE_ATTRIBUTE_CAPTIONS = (
    "a {thing}",
    "there is a {thing}",
    "there is a {thing} in the image",
    "the image contains a {thing}",
    "a {thing} is present",
    "an image of a {thing}",
)
# one wording per absent attribute: an image has up to nine, which say little about it
ABSENT_SHAPE_CAPTION = "there is no {shape}"
ABSENT_COLOR_CAPTION = "not a {color} shape"


@dataclass(frozen=True)
class ImageFacts:
    """Known facts about one image.

    Attributes:
        shape: One of `SHAPES`, or None if unknown.
        color: One of `COLORS`, or None if unknown.
        absent_shapes: Shapes known not to be in the image (all others if `shape` is known).
        absent_colors: The same for colours.
    """

    shape: str | None
    color: str | None
    absent_shapes: frozenset[str]
    absent_colors: frozenset[str]

    @property
    def is_complete(self) -> bool:
        """Whether shape and colour are both known, so that every caption is known to be true or false."""
        return self.shape is not None and self.color is not None


def question_type(answer: str) -> str:
    """Returns the type of the question that has this answer: `"shape"`, `"color"` or `"yes/no"`.

    Raises:
        ValueError: If `answer` is none of easy-VQA's 13 answers.
    """
    if answer in ("yes", "no"):
        return "yes/no"
    if answer in SHAPES:
        return "shape"
    if answer in COLORS:
        return "color"
    raise ValueError(f"{answer!r} is not an easy-VQA answer (yes, no, {', '.join(SHAPES + COLORS)})")


def derive_facts(questions: Iterable[str], answers: Iterable[str]) -> ImageFacts:
    """Derives one image's facts from its questions and answers (two sequences of the same length).

    Raises:
        ValueError: If the answers contradict each other, or the sequences differ in length.
    """
    present: set[str] = set()
    absent: set[str] = set()
    for question, answer in zip(questions, answers, strict=True):
        words = set(re.findall(r"[a-z]+", question.lower()))
        mentioned = words & {*SHAPES, *COLORS}
        if question_type(answer) != "yes/no":
            present |= mentioned | {answer}
        elif (answer == "yes") == words.isdisjoint({"no", "not"}):
            present |= mentioned
        else:
            absent |= mentioned
    shape, absent_shapes = _settle(SHAPES, present, absent)
    color, absent_colors = _settle(COLORS, present, absent)
    return ImageFacts(shape, color, absent_shapes, absent_colors)


def _settle(closed_set: tuple[str, ...], present: set[str], absent: set[str]) -> tuple[str | None, frozenset[str]]:
    """Returns the member that holds (or None) and those that do not, given that exactly one of them holds."""
    possible = present.intersection(closed_set) or set(closed_set)
    possible = possible - absent
    if not possible or len(present.intersection(closed_set)) > 1:
        raise ValueError(f"contradictory answers: {sorted(present)} are there and {sorted(absent)} are not")
    holds = possible.pop() if len(possible) == 1 else None
    ruled_out = set(closed_set) - {holds} if holds else absent.intersection(closed_set)
    return holds, frozenset(ruled_out)


def true_captions(facts: ImageFacts) -> list[str]:
    """Returns every templated caption that follows from `facts`, each once, in a fixed order."""
    captions: list[str] = []
    if facts.shape and facts.color:
        captions += [template.format(shape=facts.shape, color=facts.color) for template in FULL_CAPTIONS]
    if facts.color:
        captions += [template.format(thing=f"{facts.color} shape") for template in ONE_ATTRIBUTE_CAPTIONS]
        captions.append(f"the shape is {facts.color}")
    if facts.shape:
        captions += [template.format(thing=facts.shape) for template in ONE_ATTRIBUTE_CAPTIONS]
        captions.append(f"the shape is a {facts.shape}")
    captions += [ABSENT_SHAPE_CAPTION.format(shape=shape) for shape in sorted(facts.absent_shapes)]
    captions += [ABSENT_COLOR_CAPTION.format(color=color) for color in sorted(facts.absent_colors)]
    return captions
