"""Texts that a frozen language model writes after an image and a prompt: answers to questions, or anything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..data.image_views import ImageViews
from ..data.questions import AskedImages
from .evaluation import Evaluation
from .fields import Measured
from .language_model_task import LanguageModelTask
from .question_scores import measure_answers
from .question_task import QuestionTask, vqav2
from .rows import TaskRows
from .text_writing import Prompt, write_texts
from .training_defaults import TrainingDefaults


@dataclass
class Generation(LanguageModelTask, QuestionTask):
    """Generation: an image, a question or another prompt, and what a frozen language model learns to answer."""

    name = "generation"
    source_task = "vqa"
    protocols = {"vqav2": vqav2("of what the model writes")}
    defaults = TrainingDefaults("the projector is new", 1e-3, 1e-4, batch_size=32, passes=5, least_steps=1000)

    def training_set(self, rows: TaskRows, seed: int, views: ImageViews) -> AskedImages:
        """Returns one example for every question about every image."""
        return AskedImages(rows, [len(questions) for questions in rows.column("question")], seed, views)

    def measure(self, model: Any, processor: Any, rows: TaskRows, evaluation: Evaluation) -> Measured:
        """Returns the accuracy of what is written, as that of `vqa`."""
        collate, asked = self.collator(processor, None), rows.column("question")
        prompts = (Prompt([row["image"]], collate.prompt(question)) for row in rows for question in row["question"])
        how = (evaluation.batch_size, self.max_new_tokens, evaluation.progress)
        written = iter(write_texts(model, processor, prompts, sum(map(len, asked)), *how))
        return measure_answers([[next(written) for _ in questions] for questions in asked], rows, evaluation)
