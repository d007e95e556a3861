"""What the commands `finetune` and `evaluate` are told of a task: its columns, and what its protocol leaves open.

Each class is a part of the command line (`HfArgumentParser`), and its fields can stand in a recipe.
"""

import argparse
from dataclasses import dataclass, field
from typing import Any

from ..model.messages_cbvila import shown
from .given_options import GivenOptions


class Repeatable(argparse.Action):
    """An option that may be given once with several values or several times; both replace its default."""

    def __call__(self, parser, namespace, values, option_string=None):
        repeated = vars(namespace).setdefault("repeated_options", set())
        before = getattr(namespace, self.dest) if self.dest in repeated else []
        repeated.add(self.dest)
        setattr(namespace, self.dest, [*before, *values])


@dataclass
class TaskSettings(GivenOptions):
    """What all tasks have in common."""

    image_column: list[str] = field(
        default_factory=lambda: ["image"],
        metadata={
            "help": "Column with the image; of visual reasoning, all columns in order, in one option or several.",
            "action": Repeatable,
        },
    )
    image_id_column: str | None = field(
        default=None,
        metadata={
            "help": "Column that names a row's image. Rows of the same image in a source are put together (captions, "
            "questions), and rows without an image get theirs from image_data."
        },
    )
    image_data: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Sources with images for rows that only name theirs; joined by image_id_column.",
            "action": Repeatable,
        },
    )
    image_data_split: str | None = field(
        default=None, metadata={"help": "Split of image_data; default: train, else the only one."}
    )
    image_data_id_column: str | None = field(
        default=None,
        metadata={
            "help": "Column of image_data with the id; default: image_id_column or, where there is none, the names of "
            "the image files. File names count without their ending, too."
        },
    )
    where: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Keep rows with this value only: 'split=test'; several must all hold.",
            "action": Repeatable,
        },
    )
    skip_bad_rows: bool = field(
        default=False,
        metadata={
            "help": "Leave out rows with a missing or broken image, text or label, or one that the tokenizer cannot "
            "take, and count them; every image is read once beforehand. Without, such a row is an error that names it."
        },
    )

    def __post_init__(self):
        if not self.image_column:
            raise ValueError("image_column is empty; name the column with the images.")
        for condition in self.where:
            if "=" not in condition:
                raise ValueError(
                    f"where={shown(condition)} is no condition; expected COLUMN=VALUE, such as 'split=test'."
                )
        if self.image_data and self.image_id_column is None:
            raise ValueError("image_data is joined by image_id_column; name the column, such as image_id.")
        if self.image_data and len(self.image_column) > 1:
            raise ValueError(
                f"image_data gives each row one image, and image_column={self.image_column} names several."
            )


@dataclass
class RetrievalSettings(TaskSettings):
    """Image-text retrieval: an image, and what is true of it."""

    caption_column: str | None = field(
        default=None,
        metadata={
            "help": "Column with a caption or a list of captions; default: captions, caption, text, sentences_raw or "
            "sentences, whichever there is.",
            "aliases": ["--text_column"],
        },
    )
    rerank_k: int = field(
        default=64, metadata={"help": "Most similar candidates per query that matching orders anew; 0: none."}
    )
    own_captions_only: bool = field(
        default=False,
        metadata={
            "help": "Only an image's own captions are right, as in the published protocols; otherwise equal captions "
            "are right for each other's images, too."
        },
    )
    max_length: int = field(default=30, metadata={"help": "Longest caption in tokens; longer ones are cut."})

    def __post_init__(self):
        super().__post_init__()
        _check_single_image(self)
        _check_at_least("rerank_k", self.rerank_k, 0)


@dataclass
class QuestionSettings(TaskSettings):
    """Visual question answering: an image, a question, and what people answered."""

    question_column: str | None = field(
        default=None, metadata={"help": "Column with the question, or a list of questions; default: question."}
    )
    answer_column: str | None = field(
        default=None,
        metadata={
            "help": "Column with the answer, a list of answers, or VQA's ten answers; of a list of questions, one of "
            "these for each. Default: answers, answer or multiple_choice_answer, whichever there is."
        },
    )
    answer_list: str | None = field(
        default=None,
        metadata={
            "help": "File with all answers that may be given (JSON list, or one a line): they are ranked. Without, "
            "answers are written freely."
        },
    )
    answer_k: int = field(
        default=128,
        metadata={"help": "Answers of answer_list, those with the likeliest first token, that are ranked; 0: all."},
    )
    max_length: int | None = field(
        default=25,
        metadata={"help": "Longest question in training, in tokens; evaluation has as many as the model takes."},
    )

    def __post_init__(self):
        super().__post_init__()
        _check_single_image(self)
        _check_at_least("answer_k", self.answer_k, 0)


@dataclass
class EntailmentSettings(TaskSettings):
    """Visual entailment: an image, a text, and which class the pair belongs to."""

    text_column: str | None = field(
        default=None,
        metadata={
            "help": "Column with the text; default: hypothesis, sentence2, sentence, statement, text or caption, "
            "whichever there is.",
            "aliases": ["--caption_column"],
        },
    )
    label_column: str | None = field(
        default=None,
        metadata={
            "help": "Column with the class, by name (text, true or false, or a ClassLabel); default: label or "
            "gold_label."
        },
    )
    class_names: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Of labels that are numbers and say nothing else: the classes, from 0 on.",
            "action": Repeatable,
        },
    )
    max_length: int | None = field(
        default=None, metadata={"help": "Longest text in tokens; default: as many as the model takes."}
    )

    def __post_init__(self):
        super().__post_init__()
        _check_single_image(self)


@dataclass
class ReasoningSettings(EntailmentSettings):
    """Visual reasoning: several images, and a statement that is true or false of them."""

    image_parts: int = field(
        default=1, metadata={"help": "Cut each picture into so many images of equal width, side by side (NLVR: 3)."}
    )
    image_gap: float = field(
        default=0.0,
        metadata={"help": "What lies between these images, as a share of the picture's width (NLVR: 0.125)."},
    )
    group_column: str | None = field(
        default=None,
        metadata={
            "help": "Column whose equal values are judged as one: consistency is the share of groups with no mistake."
        },
    )
    group_parts: list[int] = field(
        default_factory=list,
        metadata={
            "help": "Of values like dev-850-0-1, the parts between dashes that name the group, counted from 0; NLVR2: "
            "0 1 3; NLVR: 0. Default: the whole value."
        },
    )

    def __post_init__(self):
        TaskSettings.__post_init__(self)
        _check_at_least("image_parts", self.image_parts, 1)
        if not 0 <= self.image_gap * (self.image_parts - 1) < 1:
            raise ValueError(f"image_gap={self.image_gap} leaves no room for {self.image_parts} images in a picture.")

    @property
    def num_images(self) -> int:
        """Images per statement."""
        return len(self.image_column) * self.image_parts


SETTINGS: dict[str, Any] = {
    "vqa": QuestionSettings,
    "retrieval": RetrievalSettings,
    "entailment": EntailmentSettings,
    "reasoning": ReasoningSettings,
}


def _check_single_image(settings: TaskSettings) -> None:
    if len(settings.image_column) > 1:
        raise ValueError(f"image_column={settings.image_column}: this task has one image; several are for reasoning.")


def _check_at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name}={value} must be at least {least}.")
