"""Accuracies of visual question answering, as pure functions of lists of answers."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import TypeVar

from transformers_cbvila.metrics.answer_normalization import normalize_answer, strip_punctuation

ANNOTATORS_PER_QUESTION = 10

Group = TypeVar("Group", bound=Hashable)


def answers_match(prediction: str, reference: str) -> bool:
    """Returns whether the two are equal, ignoring case and surrounding white space only."""
    return prediction.strip().lower() == reference.strip().lower()


def exact_match_accuracy(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Returns the share of predictions that equal their reference ([`answers_match`]), 0 to 1.

    Raises:
        ValueError: If there are no answers, or the sequences differ in length.
    """
    hits = _exact_matches(predictions, references)
    return sum(hits) / len(hits)


def accuracy_by_group(
    predictions: Sequence[str], references: Sequence[str], groups: Sequence[Group]
) -> dict[Group, float]:
    """Returns the exact-match accuracy within each group, e.g. by question type.

    Args:
        predictions: One answer per question.
        references: The correct answers, in the same order.
        groups: The questions' groups, in the same order.

    Returns:
        Accuracy, 0 to 1, of every group, in the order of first occurrence.

    Raises:
        ValueError: If there are no answers, or the sequences differ in length.
    """
    hits = _exact_matches(predictions, references)
    _check_lengths(predictions=predictions, groups=groups)
    hits_of: dict[Group, list[bool]] = defaultdict(list)
    for group, hit in zip(groups, hits, strict=True):
        hits_of[group].append(hit)
    return {group: sum(group_hits) / len(group_hits) for group, group_hits in hits_of.items()}


def vqa_soft_accuracy(predictions: Sequence[str], references_10: Sequence[Sequence[str]]) -> float:
    """Returns VQAv2's accuracy, 0 to 1: an answer counts in proportion to its annotators, fully from three on.

    For each of the ten annotators the prediction scores min(matches among the *other nine* / 3, 1). The ten scores are
    averaged, then the questions. As in the official script, predictions are normalized ([`normalize_answer`]), and
    references only stripped of punctuation, unless all ten are identical.

    Args:
        predictions: One answer per question.
        references_10: The ten annotators' answers to each question, in the same order.

    Raises:
        ValueError: If there are no answers, the sequences differ in length, or a question does not have ten
            references.
    """
    scores = vqa_soft_scores(predictions, references_10)
    return sum(scores) / len(scores)


def vqa_soft_scores(predictions: Sequence[str], references_10: Sequence[Sequence[str]]) -> list[float]:
    """Returns [`vqa_soft_accuracy`] of each question; arguments and errors are the same."""
    _check_lengths(predictions=predictions, references=references_10)
    return [_soft_score(prediction, row) for prediction, row in zip(predictions, references_10, strict=True)]


def _soft_score(prediction: str, references: Sequence[str]) -> float:
    if isinstance(references, str) or len(references) != ANNOTATORS_PER_QUESTION:
        raise ValueError(f"VQA accuracy needs {ANNOTATORS_PER_QUESTION} answers per question, got {references!r}")
    wanted = normalize_answer(prediction)
    if len(set(references)) > 1:
        references = [strip_punctuation(reference) for reference in references]
    hits = [reference == wanted for reference in references]
    return sum(min((sum(hits) - left_out) / 3, 1.0) for left_out in hits) / len(hits)


def _exact_matches(predictions: Sequence[str], references: Sequence[str]) -> list[bool]:
    _check_lengths(predictions=predictions, references=references)
    pairs = zip(predictions, references, strict=True)
    return [answers_match(prediction, reference) for prediction, reference in pairs]


def _check_lengths(**columns: Sequence[object]) -> None:
    sizes = {name: len(column) for name, column in columns.items()}
    if len(set(sizes.values())) > 1 or 0 in sizes.values():
        described = ", ".join(f"{size} {name}" for name, size in sizes.items())
        raise ValueError(f"accuracy needs equally many answers on both sides and at least one: got {described}")
