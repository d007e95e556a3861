"""Visual question answering."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.collators import CBViLADataCollatorForQuestionAnswering
from ..data.given_options import refuse_without
from ..data.image_views import ImageViews
from ..data.questions import SampledQuestions
from ..model.configuration_cbvila import CBViLAConfig
from ..model.modeling_cbvila_question_answering import CBViLAForQuestionAnswering
from ..model.processing_cbvila import CBViLAProcessor
from ..model.remote_code_cbvila import VQA_TASK
from .answer_lists import ceiling, read_answer_list
from .answer_scores import scorer_of
from .answering import answer_questions
from .evaluation import Evaluation
from .fields import Measured, Metrics
from .question_scores import measure_answers, references_of
from .question_task import QuestionTask, vqav2
from .rows import TaskRows
from .task import check_at_least
from .training_defaults import TrainingDefaults

_LONGEST_ANSWER = 20  # tokens


@dataclass
class VisualQuestionAnswering(QuestionTask):
    """Visual question answering: an image, a question, and what people answered."""

    name = "vqa"
    head = CBViLAForQuestionAnswering
    card = "question_answering.md"
    hub_task = VQA_TASK
    pipeline_tag = VQA_TASK
    defaults = TrainingDefaults(
        "the answer decoder starts from the fusion encoder", 4e-4, 2e-5, batch_size=32, passes=8, least_steps=1000
    )
    protocols = {"vqav2": vqav2("128 answers of the list ranked", {"answer_k": 128}, ("answer_list",))}
    training_options = frozenset({"max_length", "closed_questions"})
    evaluation_options = frozenset({"answer_list", "answer_k"})

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
        refuse_without(self, "answer_list", ["answer_k"])

    def training_set(self, rows: TaskRows, seed: int, views: ImageViews) -> SampledQuestions:
        """Returns images with questions, as many of them per epoch as `closed_questions` says."""
        return SampledQuestions(rows, self.closed_questions, seed, views)

    def collator(self, processor: CBViLAProcessor, config: CBViLAConfig) -> CBViLADataCollatorForQuestionAnswering:
        """Returns the collator of questions, cut to `max_length`."""
        return CBViLADataCollatorForQuestionAnswering(processor, self.max_length)

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
