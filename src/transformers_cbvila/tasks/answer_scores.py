"""The metric of question answering that the reference answers allow."""

from collections.abc import Callable, Sequence

from ..metrics.answer_normalization import normalize_answer
from ..metrics.vqa_metrics import ANNOTATORS_PER_QUESTION, answers_match, vqa_soft_scores

# Scores of answers (0 to 1), one for each question, against what people answered.
Scorer = Callable[[Sequence[str], Sequence[Sequence[str]]], list[float]]


def scorer_of(references: Sequence[Sequence[str]], official: bool = False) -> tuple[str, Scorer]:
    """Returns the metric that reference answers allow, by name, and its scores.

    Ten answers to each question: VQAv2's soft accuracy. Its official script normalises what a model answers and takes
    what people answered nearly as it is (VQAv2's is normalised already), so that "Red" is never right: `official`
    keeps that, and without it references are normalised as well. Otherwise an answer is right that is one of those
    given, but for case and outer spaces; a blank is none.
    """
    if all(len(answers) == ANNOTATORS_PER_QUESTION for answers in references):
        if official or all(answer == normalize_answer(answer) for answers in references for answer in answers):
            return "vqa_v2", vqa_soft_scores
        return "vqa_v2, references normalised", _normalized_soft_scores
    single = all(len(answers) == 1 for answers in references)
    return "exact_match" if single else "any_of", _any_of


def _normalized_soft_scores(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    return vqa_soft_scores(predictions, [[normalize_answer(answer) for answer in answers] for answers in references])


def _any_of(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    pairs = zip(predictions, references, strict=True)
    return [float(any(answer and answers_match(given, answer) for answer in answers)) for given, answers in pairs]
