"""easy-VQA (MIT; PyPI package `easy-vqa`) as a `Dataset`: questions about images of one coloured shape each.

38,575 training questions about 4,000 images and 9,673 test questions about 1,000 others, 13 answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...extras import require
from .facts import derive_facts, question_type, true_captions

if TYPE_CHECKING:
    from datasets import Dataset

SPLITS = ("train", "test")


@dataclass
class _ImageQuestions:
    """One image of the package: its file and its questions with their answers, in the package's order."""

    path: str
    questions: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)


def load_easy_vqa(split: str) -> Dataset:
    """Loads the questions of a split, with one row per image, so that a collator encodes each image once.

    Args:
        split: `"train"` (4,000 rows, 38,575 questions) or `"test"` (1,000 rows, 9,673 questions).

    Returns:
        A Dataset in the order of `image_id` (int) with `image` (`datasets.Image`, 64x64 RGB, decoded on access) and
        three lists of equal length: `question`, `answer` and `question_type` (`"shape"`, `"color"` or `"yes/no"`).

    Raises:
        ValueError: no such split.
        ImportError: `datasets` or `easy_vqa` is not installed.
    """
    rows = _read_split(split)
    datasets = require("datasets")
    texts = datasets.List(datasets.Value("string"))
    return datasets.Dataset.from_dict(
        {
            "image": [row.path for row in rows.values()],
            "image_id": list(rows),
            "question": [row.questions for row in rows.values()],
            "answer": [row.answers for row in rows.values()],
            "question_type": [[question_type(answer) for answer in row.answers] for row in rows.values()],
        },
        features=datasets.Features(
            image=datasets.Image(mode="RGB"),
            image_id=datasets.Value("int64"),
            question=texts,
            answer=texts,
            question_type=texts,
        ),
    )


def load_easy_vqa_captions(split: str, *, complete_only: bool = False) -> Dataset:
    """Loads the images of a split with captions that state what their questions and answers imply.

    Shape and colour are both known for 3,578 of 4,000 training images (259 only the shape, 134 only the colour, 29
    neither) and 888 of 1,000 test images. A row has *every* templated caption that follows from its questions, so that
    another caption is false for an image whose shape and colour are known, and unknown for others.

    Args:
        split: `"train"` or `"test"`.
        complete_only: Whether to keep only images whose shape and colour are both known.

    Returns:
        A Dataset in the order of `image_id` (int) with `image` (`datasets.Image`) and `captions` (list of str, never
        empty).

    Raises:
        ValueError: no such split.
        ImportError: `datasets` or `easy_vqa` is not installed.
    """
    rows = _read_split(split)
    datasets = require("datasets")
    facts = {image_id: derive_facts(row.questions, row.answers) for image_id, row in rows.items()}
    kept = [image_id for image_id in rows if facts[image_id].is_complete or not complete_only]
    return datasets.Dataset.from_dict(
        {
            "image": [rows[image_id].path for image_id in kept],
            "captions": [true_captions(facts[image_id]) for image_id in kept],
            "image_id": kept,
        },
        features=datasets.Features(
            image=datasets.Image(mode="RGB"),
            captions=datasets.List(datasets.Value("string")),
            image_id=datasets.Value("int64"),
        ),
    )


def _read_split(split: str) -> dict[int, _ImageQuestions]:
    """Reads one split of the installed package; keys are image ids in ascending order."""
    if split not in SPLITS:
        raise ValueError(f"easy-VQA has no split {split!r}; it has {' and '.join(SPLITS)}")
    package = require("easy_vqa")
    read_paths = {"train": package.get_train_image_paths, "test": package.get_test_image_paths}[split]
    read_questions = {"train": package.get_train_questions, "test": package.get_test_questions}[split]
    rows = {image_id: _ImageQuestions(path) for image_id, path in sorted(read_paths().items())}
    for question, answer, image_id in zip(*read_questions(), strict=True):
        rows[image_id].questions.append(question)
        rows[image_id].answers.append(answer)
    return rows
