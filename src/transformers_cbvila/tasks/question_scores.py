"""How many answers to questions about images are right: all of them, those of yes and no, and the others."""

from collections.abc import Sequence

import numpy as np

from ..data.questions import usual_answer
from ..metrics.intervals import mean_with_interval
from .answer_scores import scorer_of
from .evaluation import Evaluation
from .fields import Measured, Metrics
from .rows import TaskRows
from .text_baselines import text_baselines


def measure_answers(given: Sequence[Sequence[str]], rows: TaskRows, evaluation: Evaluation) -> Measured:
    """Returns the accuracy of answers, with what is reached without an image.

    Args:
        given: Answers to the questions of each row.
        rows: Rows with `question` and `answer`.
        evaluation: How to evaluate.
    """
    questions, references = [question for row in rows.column("question") for question in row], references_of(rows)
    metric, score = scorer_of(references, evaluation.protocol is not None)
    found: Metrics = {"metric": metric, "rows": len(questions), "images": len(rows)}
    flat = [answer for row in given for answer in row]
    scores = np.asarray(score(flat, references))
    images = np.repeat(np.arange(len(rows)), [len(row) for row in given])
    usual = [usual_answer(row) for row in references]
    closed = np.asarray([answer.lower() in ("yes", "no") for answer in usual])
    found |= mean_with_interval("accuracy", scores, evaluation.seed, images)
    for name, kind in (("accuracy_yes_no", closed), ("accuracy_other", ~closed)):
        if 0 < kind.sum() < len(kind):
            found |= mean_with_interval(name, scores[kind], evaluation.seed, images[kind])
    train = None if evaluation.train_rows is None else _questions_and_answers(evaluation.train_rows)
    found |= text_baselines(train, questions, usual, lambda guesses: score(guesses, references))
    answered = zip(images.tolist(), questions, flat, references, scores.tolist(), strict=True)
    names = ("row", "question", "prediction", "answers", "score")
    return Measured(found, [dict(zip(names, values, strict=True)) for values in answered])


def references_of(rows: TaskRows) -> list[list[str]]:
    """Returns what people answered to each question of all rows."""
    return [answers for row in rows.column("answer") for answers in row]


def _questions_and_answers(rows: TaskRows) -> list[tuple[str, str]]:
    questions = (question for row in rows.column("question") for question in row)
    return [(q, usual_answer(answers)) for q, answers in zip(questions, references_of(rows), strict=True)]
