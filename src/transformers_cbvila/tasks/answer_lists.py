"""Lists of all answers that may be given: reading them, and how good an answer from them can be."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..metrics.answer_normalization import normalize_answer
from .answer_scores import Scorer


def read_answer_list(path: str) -> list[str]:
    """Returns the answers of a file: a JSON list, or one a line. Those that come twice are taken once.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no answer, or a JSON value that is no list of texts.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"answer_list={path} isn't there; give a file with a JSON list, or an answer a line.")
    text = Path(path).read_text(encoding="utf-8")
    answers = json.loads(text) if path.endswith(".json") else text.splitlines()
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise ValueError(f"answer_list={path} is no JSON list of texts.")
    answers = list(dict.fromkeys(answer.strip() for answer in answers if answer.strip()))
    if not answers:
        raise ValueError(f"answer_list={path} holds no answer.")
    return answers


def ceiling(answer_list: Sequence[str], references: Sequence[Sequence[str]], score: Scorer) -> float:
    """Returns the accuracy, 0 to 1, of the best answer of a list to each question.

    Raises:
        ValueError: If no question has a right answer in the list.
    """
    literal = {_literal_key(answer): answer for answer in answer_list}
    normalized = {normalize_answer(answer): answer for answer in answer_list}
    # Which spellings are equal is the metric's to say: both ways are tried, and the better one counts.
    candidates = [_listed(row, literal, normalized) for row in references]
    best = [0.0] * len(references)
    for number in range(max(map(len, candidates))):  # the n-th candidate of every question that has as many
        known = [q for q, row in enumerate(candidates) if number < len(row)]
        scores = score([candidates[q][number] for q in known], [references[q] for q in known])
        for q, value in zip(known, scores, strict=True):
            best[q] = max(best[q], value)
    if not any(best):
        raise ValueError(
            f"answer_list has {len(answer_list)} answers, {', '.join(map(repr, answer_list[:3]))} and so on, and none "
            "is right for any question; is it the list of these data?"
        )
    return sum(best) / len(best)


def _literal_key(answer: str) -> str:
    """What answers have in common that are equal but for case and outer spaces."""
    return answer.strip().lower()


def _listed(row: Sequence[str], literal: Mapping[str, str], normalized: Mapping[str, str]) -> list[str]:
    """The answers of a list that may be those that people gave to a question, each once."""
    given = dict.fromkeys(row)
    found = [literal.get(_literal_key(answer)) for answer in given]
    found += [normalized.get(normalize_answer(answer)) for answer in given]
    return list(dict.fromkeys(answer for answer in found if answer is not None))
