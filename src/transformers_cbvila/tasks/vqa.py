"""Visual question answering."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.collators import CBViLADataCollatorForQuestionAnswering
from ..data.image_views import ImageViews
from ..data.questions import SampledQuestions
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
from .question_columns import ANSWER_COLUMNS, ANSWER_HELP, QUESTION_COLUMNS, QUESTION_HELP, question_reader
from .question_scores import measure_answers, references_of
from .rows import TaskRows
from .task import Task, check_at_least, text_fields
from .training_defaults import TrainingDefaults

_LONGEST_ANSWER = 20  # tokens


@dataclass
class VisualQuestionAnswering(Task):
    """Visual question answering: an image, a question, and what people answered."""

    name = "vqa"
    head = CBViLAForQuestionAnswering
    card = "question_answering.md"
    hub_task = VQA_TASK
    pipeline_tag = VQA_TASK
    columns = {"question_column": QUESTION_COLUMNS, "answer_column": ANSWER_COLUMNS}
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

    question_column: str | None = column_option(QUESTION_HELP, QUESTION_COLUMNS)
    answer_column: str | None = column_option(ANSWER_HELP, ANSWER_COLUMNS)
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
        return question_reader(columns, features)

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
            references = references_of(rows)
            ceiling(answers, references, scorer_of(references, official)[1])

    def recorded_options(self) -> dict[str, Any]:
        """Returns the options for the record of a run, the answer list without its folder."""
        return super().recorded_options() | {"answer_list": self.answer_list and Path(self.answer_list).name}

    def counts(self, rows: TaskRows) -> dict[str, set[int]]:
        """Returns the numbers of questions, and of answers to each."""
        references = references_of(rows)
        return {"rows": {len(references)}, "answers to each question": {len(answers) for answers in references}}

    def measure(self, model: Any, processor: CBViLAProcessor, rows: TaskRows, evaluation: Evaluation) -> Measured:
        """Returns the accuracy, over all questions, over those of yes and no, and over the others."""
        found: Metrics = {}
        answer_list = None if self.answer_list is None else read_answer_list(self.answer_list)
        if answer_list is not None:
            references = references_of(rows)
            score = scorer_of(references, evaluation.protocol is not None)[1]
            found["answer_list_ceiling"] = ceiling(answer_list, references, score)
            found |= {"answer_list_size": len(answer_list), "answer_k": self.answer_k or len(answer_list)}
        longest = min(_LONGEST_ANSWER, model.config.text_config.max_position_embeddings)
        options = (evaluation.batch_size, longest, evaluation.progress, answer_list, self.answer_k)
        measured = measure_answers(answer_questions(model, processor, rows, *options), rows, evaluation)
        return measured._replace(metrics=measured.metrics | found)
