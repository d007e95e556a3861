"""Visual question answering."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..data.collators import CBViLADataCollatorForQuestionAnswering
from ..data.image_views import ImageViews
from ..data.questions import SampledQuestions, usual_answer
from ..data.texts import class_names, named
from ..metrics.intervals import mean_with_interval
from ..metrics.vqa_metrics import ANNOTATORS_PER_QUESTION
from ..model.configuration_cbvila import CBViLAConfig
from ..model.modeling_cbvila_question_answering import CBViLAForQuestionAnswering
from ..model.processing_cbvila import CBViLAProcessor
from ..model.remote_code_cbvila import VQA_TASK
from .answer_lists import ceiling, read_answer_list
from .answer_scores import scorer_of
from .answering import answer_questions
from .columns import column_option
from .evaluation import Evaluation
from .fields import FieldReader, Fields, Measured, Metrics
from .protocol import Protocol
from .question_columns import questions_of
from .rows import TaskRows
from .task import Task, check_at_least, text_fields
from .text_baselines import text_baselines
from .training_defaults import TrainingDefaults

_LONGEST_ANSWER = 20  # tokens

_QUESTIONS = ("question",)
_ANSWERS = ("answers", "answer", "multiple_choice_answer")


@dataclass
class VisualQuestionAnswering(Task):
    """Visual question answering: an image, a question, and what people answered."""

    name = "vqa"
    head = CBViLAForQuestionAnswering
    card = "question_answering.md"
    hub_task = VQA_TASK
    pipeline_tag = VQA_TASK
    columns = {"question_column": _QUESTIONS, "answer_column": _ANSWERS}
    defaults = TrainingDefaults(
        "the answer decoder starts from the fusion encoder", 4e-4, 2e-5, batch_size=32, passes=8, least_steps=1000
    )
    protocols = {
        "vqav2": Protocol(
            "VQAv2's soft accuracy over ten answers, 128 answers of the list ranked; HuggingFaceM4/VQAv2@refs/convert/"
            "parquet (answers to the test questions are not public)",
            {"answer_k": 128, "image_id_column": "image_id"},
            counts={"rows": (214_354,), "answers to each question": (ANNOTATORS_PER_QUESTION,)},
            needed=("answer_list",),
        ),
    }
    merged_fields = ("question", "answer")
    training_options = frozenset({"max_length", "closed_questions"})

    question_column: str | None = column_option("Column with the question, or a list of questions", _QUESTIONS)
    answer_column: str | None = column_option(
        "Column with the answer, a list of answers, or VQA's ten answers; of a list of questions, one of these for "
        "each",
        _ANSWERS,
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
    closed_questions: int | None = field(
        default=None,
        metadata={
            "help": "Yes/no questions per image and epoch in training, beside all others; default: all of them."
        },
    )

    def __post_init__(self) -> None:
        """Raises a ValueError for options that cannot be."""
        super().__post_init__()
        check_at_least("answer_k", self.answer_k, 0)

    def field_reader(self, columns: Mapping[str, str], features: Any, classes: Sequence[str]) -> FieldReader:
        """Returns what reads the questions of a row, and the answers to each."""
        question, answer = columns["question_column"], columns["answer_column"]
        question_names, answer_names = class_names(features[question]), class_names(features[answer])
        return lambda row: questions_of(
            named(row[question], question_names), named(row[answer], answer_names), columns
        )

    def texts(self, fields: Fields) -> Iterator[tuple[str, str]]:
        """Yields questions of a row."""
        return text_fields(fields, ("question",))

    def targets(self, fields: Fields) -> Iterator[tuple[str, str]]:
        """Yields the answers of a row, which training predicts."""
        return (("answer", answer) for answers in fields["answer"] for answer in answers if answer)

    def training_set(self, rows: TaskRows, seed: int, views: ImageViews) -> SampledQuestions:
        """Returns images with questions, as many of them per epoch as `closed_questions` says."""
        return SampledQuestions(rows, self.closed_questions, seed, views)

    def collator(self, processor: CBViLAProcessor, config: CBViLAConfig) -> CBViLADataCollatorForQuestionAnswering:
        """Returns the collator of questions, cut to `max_length`."""
        return CBViLADataCollatorForQuestionAnswering(processor, self.max_length)

    def compared_metrics(self) -> tuple[str, ...]:
        """Returns the names of the accuracies."""
        return "accuracy", "accuracy_yes_no", "accuracy_other"

    def check_evaluation(self, processor: CBViLAProcessor, rows: TaskRows | None, official: bool) -> None:
        """Raises an error for an answer list that is missing, that the tokenizer cannot take, or without an answer."""
        if self.answer_list is None:
            return
        answers = read_answer_list(self.answer_list)
        try:
            processor.encode_answers(answers)
        except ValueError as error:
            raise ValueError(f"answer_list={self.answer_list}: {error}") from error
        if rows is not None:
            references = _references(rows)
            ceiling(answers, references, scorer_of(references, official)[1])

    def recorded_options(self) -> dict[str, Any]:
        """Returns the options for the record of a run, the answer list without its folder."""
        return super().recorded_options() | {"answer_list": self.answer_list and Path(self.answer_list).name}

    def counts(self, rows: TaskRows) -> dict[str, set[int]]:
        """Returns the numbers of questions, and of answers to each."""
        references = _references(rows)
        return {"rows": {len(references)}, "answers to each question": {len(answers) for answers in references}}

    def measure(self, model: Any, processor: CBViLAProcessor, rows: TaskRows, evaluation: Evaluation) -> Measured:
        """Returns the accuracy, over all questions, over those of yes and no, and over the others."""
        questions, references = [question for row in rows.column("question") for question in row], _references(rows)
        metric, score = scorer_of(references, evaluation.protocol is not None)
        found: Metrics = {"metric": metric, "rows": len(questions), "images": len(rows)}
        answer_list = None if self.answer_list is None else read_answer_list(self.answer_list)
        if answer_list is not None:
            found["answer_list_ceiling"] = ceiling(answer_list, references, score)
            found |= {"answer_list_size": len(answer_list), "answer_k": self.answer_k or len(answer_list)}
        longest = min(_LONGEST_ANSWER, model.config.text_config.max_position_embeddings)
        options = (evaluation.batch_size, longest, evaluation.progress, answer_list, self.answer_k)
        given = answer_questions(model, processor, rows, *options)
        flat = [answer for row in given for answer in row]
        scores = np.asarray(score(flat, references))
        images = np.repeat(np.arange(len(rows)), [len(row) for row in given])
        usual = [usual_answer(row) for row in references]
        closed = np.asarray([answer.lower() in ("yes", "no") for answer in usual])
        found |= mean_with_interval("accuracy", scores, evaluation.seed, images)
        for name, kind in (("accuracy_yes_no", closed), ("accuracy_other", ~closed)):
            if 0 < kind.sum() < len(kind):
                found |= mean_with_interval(name, scores[kind], evaluation.seed, images[kind])
        train = None if evaluation.train_rows is None else _questions_and_answers(evaluation.train_rows)
        found |= text_baselines(train, questions, usual, lambda guesses: score(guesses, references))
        answered = zip(images.tolist(), questions, flat, references, scores.tolist(), strict=True)
        names = ("row", "question", "prediction", "answers", "score")
        return Measured(found, [dict(zip(names, values, strict=True)) for values in answered])


def _references(rows: TaskRows) -> list[list[str]]:
    """What people answered to each question of all rows."""
    return [answers for row in rows.column("answer") for answers in row]


def _questions_and_answers(rows: TaskRows) -> list[tuple[str, str]]:
    questions = (question for row in rows.column("question") for question in row)
    return [(q, usual_answer(answers)) for q, answers in zip(questions, _references(rows), strict=True)]
