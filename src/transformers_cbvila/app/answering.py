"""Answers to questions about a picture, and what speaks for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image

from ..explaining.explain import explain
from ..explaining.explanation import Explanation
from ..model.pipeline_cbvila import CBViLAVisualQuestionAnsweringPipeline
from .models import Loaded

_ANSWERS = 4


class Answer(NamedTuple):
    """An answer and its probability."""

    text: str
    probability: float


@dataclass
class Answered:
    """Answers to a question.

    Attributes:
        answers: The answers, the most probable first.
        explained: The one of them that the explanation is of.
        explanation: Where the words of the question look for it.
    """

    answers: list[Answer]
    explained: str
    explanation: Explanation


class Answering:
    """Answers questions.

    Args:
        loaded: A question answering model.
    """

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self._ask = CBViLAVisualQuestionAnsweringPipeline(
            loaded.model, processor=loaded.processor, device=loaded.model.device
        )

    def answer(self, image: Image.Image | None, question: str, explained: str | None = None) -> Answered:
        """Answers a question.

        Args:
            image: The picture.
            question: The question.
            explained: The answer to explain; the most probable one by default.

        Raises:
            ValueError: If there is no picture, or the question has no words.
        """
        if image is None:
            raise ValueError("Choose a picture, or drop one of your own, and ask about it.")
        if not question.strip():
            raise ValueError("Write a question about the picture, or choose one of the examples.")
        found = self._ask(image, question, top_k=_ANSWERS, truncation=True)
        answers = [Answer(one["answer"], one["score"]) for one in found if one["answer"]]
        if not answers:
            raise ValueError("The model has no answer to this question.")
        explained = explained or answers[0].text
        explanation = explain(self.loaded.model, self.loaded.processor, image, question, explained)
        return Answered(answers, explained, explanation)
