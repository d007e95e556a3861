"""Baselines that ignore the image, and chance."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from math import comb


def majority_accuracy(train_answers: Sequence[str], test_answers: Sequence[str]) -> float:
    """Returns the test accuracy, 0 to 1, of always giving the training set's most frequent answer.

    Raises:
        ValueError: If either set is empty.
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
    """Returns the test accuracy, 0 to 1, of giving each question its most frequent answer in the training set.

    A question that does not occur in training gets the most frequent answer of all.

    Raises:
        ValueError: If either set is empty, or questions and answers differ in number.
    """
    _check_not_empty(train_answers, test_answers)
    guesses = guesses_by_text(train_questions, train_answers, test_questions)
    return sum(guess == answer for guess, answer in zip(guesses, test_answers, strict=True)) / len(test_answers)


def guesses_by_text(train_texts: Sequence[str], train_answers: Sequence[str], test_texts: Sequence[str]) -> list[str]:
    """Returns for each text its most frequent answer in training, or the most frequent one of all if it has none.

    Raises:
        ValueError: If there is no training answer, or texts and answers differ in number.
    """
    _check_not_empty(train_answers, test_texts)
    answers_of: dict[str, Counter[str]] = defaultdict(Counter)
    for text, answer in zip(train_texts, train_answers, strict=True):
        answers_of[text][answer] += 1
    fallback = _most_frequent(Counter(train_answers))
    guess = {text: _most_frequent(counts) for text, counts in answers_of.items()}
    return [guess.get(text, fallback) for text in test_texts]


def majority(answers: Sequence[str]) -> str:
    """Returns the most frequent answer; of equally frequent ones the first."""
    _check_not_empty(answers, answers)
    return _most_frequent(Counter(answers))


def chance_recall(relevant: Sequence[int], gallery: int, k: int) -> float:
    """Returns the expected recall at k, 0 to 1, of a random ranking.

    Args:
        relevant: For each query, how many of the gallery's items are relevant.
        gallery: How many items the gallery has.
        k: Depth.

    Raises:
        ValueError: If there is no query, or one with no relevant items or more than the gallery has.
    """
    if not relevant or not all(0 < count <= gallery for count in relevant):
        raise ValueError(f"each query needs 1 to {gallery} relevant items, got {sorted(set(relevant))}")
    shares = {count: _chance_of_one(count, gallery, min(k, gallery)) for count in set(relevant)}
    return sum(shares[count] for count in relevant) / len(relevant)


def _chance_of_one(relevant: int, gallery: int, k: int) -> float:
    """Returns the probability that k items drawn without replacement include a relevant one."""
    return 1.0 - comb(gallery - relevant, k) / comb(gallery, k)


def _most_frequent(counts: Counter[str]) -> str:
    """Returns the most frequent answer; of equally frequent ones the first."""
    return counts.most_common(1)[0][0]


def _check_not_empty(train_answers: Sequence[str], test_answers: Sequence[str]) -> None:
    if not train_answers or not test_answers:
        raise ValueError(
            f"baselines need answers: got {len(train_answers)} for training, {len(test_answers)} for test"
        )
