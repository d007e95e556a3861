"""What tasks of questions about images have in common: columns with questions and answers, and how answers count."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..data.texts import class_names, named
from .columns import column_option
from .fields import FieldReader, Fields
from .question_columns import questions_of
from .question_scores import references_of
from .rows import TaskRows
from .task import Task, text_fields

_QUESTIONS = ("question",)
_ANSWERS = ("answers", "answer", "multiple_choice_answer")


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
