"""Rows of each task, by (options, split, task, row) alone: what their columns hold, and the scenes of their images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .captions import caption_of, captions_of, only_those_that_tell
from .confusers import ROLES, gallery
from .draws import Draws
from .entailment import draw_hypothesis, draw_premise
from .false_captions import false_description
from .full_description import FullDescription
from .judging import LABELS
from .options import SceneOptions
from .questions import scene_with_questions
from .reasoning import PAIRS_PER_STATEMENT, pair_of_scenes, pair_statement
from .sampling import NOVELTIES, Sampler
from .scene import Scene


@dataclass
class Row:
    """One row.

    Attributes:
        texts: Columns with texts and labels.
        scenes: The scene of each column with images.
    """

    texts: dict[str, Any]
    scenes: dict[str, Scene] = field(default_factory=dict)


def make_row(options: SceneOptions, split: str, task: str, number: int) -> Row:
    """Returns a row of a split for a task; nothing is drawn yet."""
    return _MAKERS[task](options, split, number)


def _sampler(options: SceneOptions, split: str, *key: Any) -> Sampler:
    """Returns what draws the scenes of a row; rows of `test_compositional` have a new kind and a new pair in turns."""
    novelty = NOVELTIES[key[-1] % 2] if split == "test_compositional" else None
    return Sampler(Draws(options.seed, split, *key), options, split, novelty)


def _captioned(options: SceneOptions, split: str, number: int) -> Row:
    if split == "confusers":
        confuser = gallery(options)[number]
        texts = {"captions": [confuser.caption], "group": number // len(ROLES), "confuser": confuser.role}
        return Row({"caption": confuser.caption, **texts}, {"image": confuser.scene})
    sampler = _sampler(options, split, "pretraining", number)
    draws = sampler.draws
    scene = sampler.scene(sampler.kinds(draws.between(options.fewest, options.objects)))
    captions = captions_of(scene, options.size, draws)
    captions = only_those_that_tell(options.captions, captions, draws) if options.captions != "all" else captions
    false = _false_captions(captions, scene, Sampler(Draws(options.seed, split, "false", number), options, split))
    captioned = list(captions)
    return Row({"caption": captioned[0], "captions": captioned, "negative_captions": false}, {"image": scene})


def _false_captions(captions: dict[str, FullDescription | None], scene: Scene, sampler: Sampler) -> list[str]:
    """Returns a false one for each of the captions, of its form; "" where there is none."""
    changed = [told and false_description(told, scene, sampler) for told in captions.values()]
    return [caption_of(told, sampler.draws) if told else "" for told in changed]


def _asked(options: SceneOptions, split: str, number: int) -> Row:
    scene, questions = scene_with_questions(_sampler(options, split, "vqa", number))
    texts = {
        "question": [question.text for question in questions],
        "answer": [question.answer for question in questions],
        "question_type": [question.type for question in questions],
    }
    return Row({"image_id": number, **texts}, {"image": scene})


def _entailed(options: SceneOptions, split: str, number: int) -> Row:
    group, member = divmod(number, len(LABELS))
    sampler = _sampler(options, split, "hypothesis", group)
    hypothesis, label = draw_hypothesis(sampler), sampler.draws.shuffled(LABELS)[member]
    premises = Sampler(Draws(options.seed, split, "entailment", number), options, split, sampler.novelty)
    scene = draw_premise(premises, hypothesis, label)
    return Row({"hypothesis": str(hypothesis.statement), "label": label}, {"image": scene})


def _reasoned(options: SceneOptions, split: str, number: int) -> Row:
    group, member = divmod(number, PAIRS_PER_STATEMENT)
    sampler = _sampler(options, split, "statement", group)
    statement = pair_statement(sampler)
    labels = sampler.draws.shuffled([True, True, False, False])
    rows = Sampler(Draws(options.seed, split, "reasoning", number), options, split, sampler.novelty)
    left, right = pair_of_scenes(rows, statement, labels[member])
    # as NLVR2's: the first, second and fourth part name the statement
    identifier = f"{split}-{group}-{member}-0"
    texts = {"sentence": statement.text, "label": labels[member], "identifier": identifier}
    return Row(texts, {"left_image": left, "right_image": right})


_MAKERS: dict[str, Callable[[SceneOptions, str, int], Row]] = {
    "pretraining": _captioned,
    "retrieval": _captioned,
    "vqa": _asked,
    "entailment": _entailed,
    "reasoning": _reasoned,
}
