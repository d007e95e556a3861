"""What is reached without an image: always the most frequent answer, and the most frequent one to each text."""

from collections.abc import Callable, Sequence

import numpy as np

from ..metrics.baselines import guesses_by_text, majority
from .fields import Metrics


def text_baselines(
    train: Sequence[tuple[str, str]] | None,
    texts: Sequence[str],
    answers: Sequence[str],
    score: Callable[[Sequence[str]], Sequence[float]],
) -> Metrics:
    """Returns `accuracy_majority_floor` and, with training rows, `accuracy_text_only_floor`.

    Args:
        train: Texts and answers of training rows; without, the majority is that of the evaluated rows.
        texts: Of the evaluated rows.
        answers: Of the evaluated rows.
        score: Scores (0 to 1) of guesses, one for each text.
    """
    usual = majority([answer for _, answer in train] if train else answers)
    found: Metrics = {"accuracy_majority_floor": float(np.mean(score([usual] * len(texts))))}
    if train:
        known, given = zip(*train, strict=True)
        guesses = guesses_by_text([_key(text) for text in known], given, [_key(text) for text in texts])
        found["accuracy_text_only_floor"] = float(np.mean(score(guesses)))
    return found


def _key(text: str) -> str:
    return " ".join(text.lower().split())
