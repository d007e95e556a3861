"""The fields of one row of a task, from the columns as people keep them; each reader says what is wrong with a row."""

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ..model.messages_cbvila import shown
from .column_names import CAPTION_COLUMNS
from .columns import find_column
from .task_settings import EntailmentSettings, QuestionSettings, ReasoningSettings, RetrievalSettings
from .texts import class_names, is_list, is_missing, items_of, named, text_of, texts_of, whole

# Columns that are looked for, in this order, when none is named.
USUAL_COLUMNS = {
    "caption_column": CAPTION_COLUMNS,
    "question_column": ("question",),
    "answer_column": ("answers", "answer", "multiple_choice_answer"),
    "text_column": ("hypothesis", "sentence2", "sentence", "statement", "text", "caption", "txt"),
    "label_column": ("label", "gold_label", "cls"),
}

Fields = dict[str, Any]
Reader = Callable[[Mapping[str, Any]], Fields]


def find_columns(settings: Any, names: Sequence[str], source: str) -> dict[str, str]:
    """The column of each option of `settings` that names one, in a source with columns `names`.

    Raises:
        ValueError: If there is none; the message lists the columns that there are.
    """
    found: dict[str, str] = {}
    for option, usual in USUAL_COLUMNS.items():
        if not hasattr(settings, option):
            continue
        found[option] = find_column(getattr(settings, option), usual, names, source, option)
    return found


def field_reader(settings: Any, columns: dict[str, str], features: Any, classes: Sequence[str]) -> Reader:
    """What reads the texts of a row.

    Args:
        settings: Of the task.
        columns: By option, as [`find_columns`] gives them.
        features: The source's features.
        classes: Names of the classes that labels may have.

    Raises:
        ValueError: If labels are numbers that nobody named.
    """
    cells = {option: _cell_reader(column, features) for option, column in columns.items()}
    if isinstance(settings, RetrievalSettings):
        return lambda row: {"captions": texts_of(cells["caption_column"](row), _called("caption", columns))}
    if isinstance(settings, QuestionSettings):
        return lambda row: questions_of(cells["question_column"](row), cells["answer_column"](row), columns)
    label = _label_reader(settings, columns["label_column"], features, classes)

    def read(row: Mapping[str, Any]) -> Fields:
        text = texts_of(cells["text_column"](row), _called("text", columns))[0]
        fields = {"text": text, "label": label(row)}
        if isinstance(settings, ReasoningSettings) and settings.group_column is not None:
            fields["group"] = _group(row[settings.group_column], settings.group_parts)
        return fields

    return read


def _cell_reader(column: str, features: Any) -> Callable[[Mapping[str, Any]], Any]:
    """What reads a column's cell, classes by their names."""
    names = class_names(features[column])
    return lambda row: named(row[column], names)


def _called(what: str, columns: Mapping[str, str]) -> str:
    """What an error calls a text: with its column, where one is known."""
    column = columns.get(f"{what}_column")
    return what if column is None else f"{what} in column {column!r}"


def questions_of(asked: Any, answered: Any, columns: Mapping[str, str] = MappingProxyType({})) -> Fields:
    """Questions, and the answers that people gave to each: of one question all of them, of several one item for each.

    A blank answer among others stays, as "": whether ten people were asked decides how answers are scored.

    Args:
        asked, answered: Cells with the questions and the answers.
        columns: Their columns, for errors.

    Raises:
        ValueError: If a question, or all answers to one, are blank, or there are answers to another number of them.
    """
    question, answer = _called("question", columns), _called("answer", columns)
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
    """Answers, of which numbers are some, too: people count."""
    answers = [text_of(item, what) for item in items_of(value, what)]
    if not any(answers):
        raise ValueError(f"it has no {what} ({shown(value)})")
    return answers


def image_id_of(value: Any) -> str:
    """What names an image. ValueError if nothing does."""
    if is_missing(value):
        raise ValueError(f"it has no image id ({shown(value)})")
    return str(whole(value))


def _label_reader(
    settings: EntailmentSettings, column: str, features: Any, classes: Sequence[str]
) -> Callable[[Mapping[str, Any]], str]:
    names = settings.class_names or class_names(features[column])
    dtype = str(getattr(features[column], "dtype", ""))
    if names is None and dtype.startswith(("int", "uint", "float")):
        names = _false_and_true(classes)
        if names is None:
            raise ValueError(f"{_unnamed(column, classes)}.")
    canonical = {name.lower(): name for name in classes}

    def read(row: Mapping[str, Any]) -> str:
        value = row[column]
        if is_missing(value) or isinstance(value, str) and not value.strip():
            raise ValueError(f"it has no label ({shown(value)})")
        name = canonical.get(str(value).strip().lower())
        number = _number(value)
        if name is not None or number is None:
            return _class(name, value, classes)
        known = names or _false_and_true(classes)
        if known is None:
            raise ValueError(f"its label is {shown(value)}. {_unnamed(column, classes)}")
        value = known[number] if 0 <= number < len(known) else f"class {number}"
        return _class(canonical.get(value.lower()), value, classes)

    return read


def _class(name: str | None, value: Any, classes: Sequence[str]) -> str:
    if name is None:
        raise ValueError(f"its label is {shown(value)}; the classes are {', '.join(classes)}")
    return name


def _number(value: Any) -> int | None:
    """The number of a class, which is a text where all columns are, such as in CSV files; None if it is none."""
    value = whole(value)
    if isinstance(value, str) and re.fullmatch(r"\s*\d+(\.0*)?\s*", value):
        return int(float(value))
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _false_and_true(classes: Sequence[str]) -> list[str] | None:
    """These classes in this order, which is that of their numbers everywhere; None if the classes are others."""
    names = sorted(classes, key=str.lower)
    return names if [name.lower() for name in names] == ["false", "true"] else None


def _unnamed(column: str, classes: Sequence[str]) -> str:
    return (
        f"Column {column!r} has numbers and no names for them; say what they mean from 0 on, such as "
        f"--class_names {' '.join(classes)}, in the order of the data"
    )


def _group(value: Any, parts: Sequence[int]) -> str:
    pieces = str(value).split("-")
    if not parts:
        return str(value)
    if max(parts) >= len(pieces):
        raise ValueError(f"its group is {shown(value)}, which has no part {max(parts)} between dashes")
    return "-".join(pieces[part] for part in parts)
