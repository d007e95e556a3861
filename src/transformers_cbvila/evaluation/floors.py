"""Accuracies that need no image: what a visual question answering model must beat before it has learned to look."""

from collections import Counter, defaultdict
from collections.abc import Sequence


def majority_accuracy(train_answers: Sequence[str], test_answers: Sequence[str]) -> float:
    """Test accuracy, 0 to 1, of always giving the training set's most frequent answer.

    Raises:
        ValueError: either set is empty.
    """
    _check_not_empty(train_answers, test_answers)
    answer = _most_frequent(Counter(train_answers))
    return sum(reference == answer for reference in test_answers) / len(test_answers)


def question_only_accuracy(
    train_questions: Sequence[str],
    train_answers: Sequence[str],
    test_questions: Sequence[str],
    test_answers: Sequence[str],
) -> float:
    """Test accuracy, 0 to 1, of giving each question the answer that it has most often in the training set.

    A question that never occurs in training gets the training set's most frequent answer.

    Raises:
        ValueError: either set is empty, or questions and answers differ in number.
    """
    _check_not_empty(train_answers, test_answers)
    answers_of: dict[str, Counter[str]] = defaultdict(Counter)
    for question, answer in zip(train_questions, train_answers, strict=True):
        answers_of[question][answer] += 1
    fallback = _most_frequent(Counter(train_answers))
    guess = {question: _most_frequent(counts) for question, counts in answers_of.items()}
    pairs = zip(test_questions, test_answers, strict=True)
    return sum(guess.get(question, fallback) == answer for question, answer in pairs) / len(test_answers)


def _most_frequent(counts: Counter[str]) -> str:
    """The most frequent answer; of equally frequent ones the one that training data names first."""
    return counts.most_common(1)[0][0]


def _check_not_empty(train_answers: Sequence[str], test_answers: Sequence[str]) -> None:
    if not train_answers or not test_answers:
        raise ValueError(f"floors need answers: got {len(train_answers)} for training, {len(test_answers)} for test")
