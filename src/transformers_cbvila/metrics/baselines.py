"""Accuracies that need no image: what a visual question answering model must beat before it has learned to look."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from math import comb


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
    guesses = guesses_by_text(train_questions, train_answers, test_questions)
    return sum(guess == answer for guess, answer in zip(guesses, test_answers, strict=True)) / len(test_answers)


def guesses_by_text(train_texts: Sequence[str], train_answers: Sequence[str], test_texts: Sequence[str]) -> list[str]:
    """For each text the answer that it has most often in training; the most frequent one of all, where it has none.

    Raises:
        ValueError: there is no training answer, or texts and answers differ in number.
    """
    _check_not_empty(train_answers, test_texts)
    answers_of: dict[str, Counter[str]] = defaultdict(Counter)
    for text, answer in zip(train_texts, train_answers, strict=True):
        answers_of[text][answer] += 1
    fallback = _most_frequent(Counter(train_answers))
    guess = {text: _most_frequent(counts) for text, counts in answers_of.items()}
    return [guess.get(text, fallback) for text in test_texts]


def majority(answers: Sequence[str]) -> str:
    """The most frequent answer; of equally frequent ones the first."""
    _check_not_empty(answers, answers)
    return _most_frequent(Counter(answers))


def chance_recall(relevant: Sequence[int], gallery: int, k: int) -> float:
    """Recall at k, 0 to 1, of an order drawn at random.

    Args:
        relevant: for each query, how many of the gallery's items are relevant.
        gallery: how many items there are.
        k: depth.

    Raises:
        ValueError: there is no query, or one with no or more relevant items than there are.
    """
    if not relevant or not all(0 < count <= gallery for count in relevant):
        raise ValueError(f"each query needs 1 to {gallery} relevant items, got {sorted(set(relevant))}")
    shares = {count: _chance_of_one(count, gallery, min(k, gallery)) for count in set(relevant)}
    return sum(shares[count] for count in relevant) / len(relevant)


def _chance_of_one(relevant: int, gallery: int, k: int) -> float:
    """That at least one of the relevant items is among k drawn without replacement."""
    return 1.0 - comb(gallery - relevant, k) / comb(gallery, k)


def _most_frequent(counts: Counter[str]) -> str:
    """The most frequent answer; of equally frequent ones the one that training data names first."""
    return counts.most_common(1)[0][0]


def _check_not_empty(train_answers: Sequence[str], test_answers: Sequence[str]) -> None:
    if not train_answers or not test_answers:
        raise ValueError(f"floors need answers: got {len(train_answers)} for training, {len(test_answers)} for test")
