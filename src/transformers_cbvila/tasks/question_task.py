"""What tasks of questions about images have in common: columns with questions and answers, and how answers count."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..data.texts import class_names, named
from ..metrics.vqa_metrics import ANNOTATORS_PER_QUESTION
from .columns import column_option
from .fields import FieldReader, Fields
from .protocol import Protocol
from .question_columns import questions_of
from .question_scores import references_of
from .rows import TaskRows
from .task import Task, text_fields

_QUESTIONS = ("question",)
_ANSWERS = ("answers", "answer", "multiple_choice_answer")


def vqav2(how: str, defaults: Mapping[str, Any] | None = None, needed: tuple[str, ...] = ()) -> Protocol:
    """Returns the protocol of VQAv2's validation questions.

    Args:
        how: Where answers come from, the end of a sentence.
        defaults: Further defaults of the task's options.
        needed: Options that must be given.
    """
    return Protocol(
        f"VQAv2's soft accuracy over ten answers, {how}; HuggingFaceM4/VQAv2@refs/convert/parquet (answers to the "
        "test questions are not public)",
        {"image_id_column": "image_id", **(defaults or {})},
        counts={"rows": (214_354,), "answers to each question": (ANNOTATORS_PER_QUESTION,)},
        needed=needed,
    )


@dataclass
class QuestionTask(Task):
    """A task whose rows have an image, questions about it, and what people answered."""

    columns = {"question_column": _QUESTIONS, "answer_column": _ANSWERS}
    merged_fields = ("question", "answer")

    question_column: str | None = column_option("Column with the question, or a list of questions", _QUESTIONS)
    answer_column: str | None = column_option(
        "Column with the answer, a list of answers, or VQA's ten answers; of a list of questions, one of these for "
        "each",
        _ANSWERS,
    )

    def field_reader(self, columns: Mapping[str, str], features: Any, classes: Sequence[str]) -> FieldReader:
        """Returns what reads the questions of a row, and the answers to each."""
        question, answer = columns["question_column"], columns["answer_column"]
        question_names, answer_names = class_names(features[question]), class_names(features[answer])
        return lambda row: questions_of(
            named(row[question], question_names), named(row[answer], answer_names), columns
        )

    def texts(self, fields: Fields) -> Iterator[tuple[str, str]]:
        """Yields the questions of a row."""
        return text_fields(fields, ("question",))

    def targets(self, fields: Fields) -> Iterator[tuple[str, str]]:
        """Yields the answers of a row, which training predicts."""
        return (("answer", answer) for answers in fields["answer"] for answer in answers if answer)

    def compared_metrics(self) -> tuple[str, ...]:
        """Returns the names of the accuracies."""
        return "accuracy", "accuracy_yes_no", "accuracy_other"

    def counts(self, rows: TaskRows) -> dict[str, set[int]]:
        """Returns the numbers of questions, and of answers to each."""
        references = references_of(rows)
        return {"rows": {len(references)}, "answers to each question": {len(answers) for answers in references}}
