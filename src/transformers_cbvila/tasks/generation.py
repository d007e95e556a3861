"""Texts that a frozen language model writes after an image and a prompt: answers to questions, or anything else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..data.image_views import ImageViews
from ..data.questions import AskedImages
from .columns import column_option
from .evaluation import Evaluation
from .fields import FieldReader, Fields, Measured
from .language_model_task import LanguageModelTask
from .question_columns import ANSWER_COLUMNS, ANSWER_HELP, QUESTION_COLUMNS, QUESTION_HELP, question_reader
from .question_scores import measure_answers, references_of
from .rows import TaskRows
from .task import text_fields
from .text_writing import Prompt, write_texts
from .training_defaults import TrainingDefaults


@dataclass
class Generation(LanguageModelTask):
    """Generation: an image, a question or another prompt, and what a frozen language model learns to answer."""

    name = "generation"
    source_task = "vqa"
    columns = {"question_column": QUESTION_COLUMNS, "answer_column": ANSWER_COLUMNS}
    defaults = TrainingDefaults("the projector is new", 1e-3, 1e-4, batch_size=32, passes=5, least_steps=1000)
    merged_fields = ("question", "answer")

    question_column: str | None = column_option(QUESTION_HELP, QUESTION_COLUMNS)
    answer_column: str | None = column_option(ANSWER_HELP, ANSWER_COLUMNS)

    def field_reader(self, columns: Mapping[str, str], features: Any, classes: Sequence[str]) -> FieldReader:
        """Returns what reads the questions of a row, and the answers to each."""
        return question_reader(columns, features)

    def texts(self, fields: Fields) -> Iterator[tuple[str, str]]:
        """Yields the questions of a row."""
        return text_fields(fields, ("question",))

    def targets(self, fields: Fields) -> Iterator[tuple[str, str]]:
        """Yields the answers of a row, which training predicts."""
        return (("answer", answer) for answers in fields["answer"] for answer in answers if answer)

    def training_set(self, rows: TaskRows, seed: int, views: ImageViews) -> AskedImages:
        """Returns one example for every question about every image."""
        return AskedImages(rows, [len(questions) for questions in rows.column("question")], seed, views)

    def compared_metrics(self) -> tuple[str, ...]:
        """Returns the names of the accuracies."""
        return "accuracy", "accuracy_yes_no", "accuracy_other"

    def counts(self, rows: TaskRows) -> dict[str, set[int]]:
        """Returns the number of questions."""
        return {"rows": {len(references_of(rows))}}

    def measure(self, model: Any, processor: Any, rows: TaskRows, evaluation: Evaluation) -> Measured:
        """Returns the accuracy of what is written, as that of `vqa`."""
        collate, asked = self.collator(processor, None), rows.column("question")
        prompts = (Prompt([row["image"]], collate.prompt(question)) for row in rows for question in row["question"])
        how = (evaluation.batch_size, self.max_new_tokens, evaluation.progress)
        written = iter(write_texts(model, processor, prompts, sum(map(len, asked)), *how))
        return measure_answers([[next(written) for _ in questions] for questions in asked], rows, evaluation)
