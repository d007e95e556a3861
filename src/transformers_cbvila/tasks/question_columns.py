"""Questions and answers in the forms in which people keep them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ..data.texts import is_list, items_of, text_of
from ..model.messages_cbvila import shown
from .fields import Fields
from .task import called


def questions_of(asked: Any, answered: Any, columns: Mapping[str, str] = MappingProxyType({})) -> Fields:
    """Returns questions, and the reference answers to each: of one question all, of several one item for each.

    A blank answer among others stays, as "": whether ten people were asked decides how answers are scored.

    Args:
        asked: Cell with the questions.
        answered: Cell with the answers.
        columns: Their columns by option, for errors.

    Raises:
        ValueError: If a question, or all answers to one, are blank, or there are answers to another number of them.
    """
    question, answer = called("question", columns), called("answer", columns)
    questions = [text_of(item, question) for item in items_of(asked, question)]
    answers = items_of(answered, answer)
    if not questions or not all(questions):
        raise ValueError(f"it has no {question} ({shown(asked)})")
    if len(questions) == 1 and not any(is_list(item) for item in answers):
        answers = [answers]
    if len(answers) != len(questions):
        raise ValueError(
            f"it has {len(questions)} question(s) and answers to {len(answers)}; expected an answer, or a list of "
            "answers, to each"
        )
    return {"question": questions, "answer": [_answers_of(given, answer) for given in answers]}


def _answers_of(value: Any, what: str) -> list[str]:
    """Answers, which may be numbers: people count."""
    answers = [text_of(item, what) for item in items_of(value, what)]
    if not any(answers):
        raise ValueError(f"it has no {what} ({shown(value)})")
    return answers
