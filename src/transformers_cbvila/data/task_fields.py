"""The fields of one row of a task, from the columns as people keep them; each reader says what is wrong with a row."""

from collections.abc import Callable, Mapping, Sequence
from math import isnan
from typing import Any

from .task_settings import EntailmentSettings, QuestionSettings, ReasoningSettings, RetrievalSettings

# Columns that are looked for, in this order, when none is named.
USUAL_COLUMNS = {
    "caption_column": ("captions", "caption", "text", "sentences_raw", "sentences"),
    "question_column": ("question",),
    "answer_column": ("answers", "answer", "multiple_choice_answer"),
    "text_column": ("hypothesis", "sentence2", "sentence", "statement", "text", "caption"),
    "label_column": ("label", "gold_label"),
}
_TEXT_KEYS = ("answer", "raw", "caption", "text")  # of records: VQA's answers, Karpathy's sentences

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
        given = getattr(settings, option)
        column = given or next((name for name in usual if name in names), None)
        if column is None or column not in names:
            what = f"column {given!r}" if given else f"column called {', '.join(usual)}"
            raise ValueError(f"{source} has no {what}; set {option} to one of {', '.join(names)}.")
        found[option] = column
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
    if isinstance(settings, RetrievalSettings):
        return lambda row: {"captions": texts_of(row[columns["caption_column"]], "caption")}
    if isinstance(settings, QuestionSettings):
        return lambda row: questions_of(row[columns["question_column"]], row[columns["answer_column"]])
    label = _label_reader(settings, columns["label_column"], features, classes)

    def read(row: Mapping[str, Any]) -> Fields:
        fields = {"text": texts_of(row[columns["text_column"]], "text")[0], "label": label(row)}
        if isinstance(settings, ReasoningSettings) and settings.group_column is not None:
            fields["group"] = _group(row[settings.group_column], settings.group_parts)
        return fields

    return read


def questions_of(asked: Any, answered: Any) -> Fields:
    """Questions, and the answers that people gave to each: of one question all of them, of several one item for each.

    A blank answer among others stays, as "": whether ten people were asked decides how answers are scored.

    Raises:
        ValueError: If a question, or all answers to one, are blank, or there are answers to another number of them.
    """
    questions, answers = [_text_of(item, "question") for item in _items(asked)], _items(answered)
    if not questions or not all(questions):
        raise ValueError(f"it has no question ({asked!r})")
    if len(questions) == 1 and not any(_is_list(item) for item in answers):
        answers = [answers]
    if len(answers) != len(questions):
        raise ValueError(
            f"it has {len(questions)} question(s) and answers to {len(answers)}; expected an answer, or a list of "
            "answers, to each"
        )
    return {"question": questions, "answer": [_answers_of(given) for given in answers]}


def _answers_of(value: Any) -> list[str]:
    answers = [_text_of(item, "answer") for item in _items(value)]
    if not any(answers):
        raise ValueError(f"it has no answer ({value!r})")
    return answers


def image_id_of(value: Any) -> str:
    """What names an image. ValueError if nothing does."""
    if is_missing(value):
        raise ValueError(f"it has no image id ({value!r})")
    return str(_whole(value))


def texts_of(value: Any, what: str) -> list[str]:
    """Texts from a text, a list of texts, a list of records that hold one each, or a record of lists.

    Raises:
        ValueError: If there is none that has a letter, a digit or a sign to show.
    """
    texts = [text for item in _items(value) if (text := _text_of(item, what))]
    if not texts:
        raise ValueError(f"it has no {what} ({value!r})")
    return texts


def _items(value: Any) -> list[Any]:
    """The items of a list or of a record of lists; anything else as the only one."""
    if isinstance(value, Mapping):
        value = _of_record(value)
    return list(value) if _is_list(value) else [value]


def _text_of(item: Any, what: str) -> str:
    """A text, or that of a record; "" where there is nothing to show."""
    if isinstance(item, Mapping):
        item = _of_record(item)
    if is_missing(item):
        return ""
    if isinstance(item, bool | int | float):
        item = str(_whole(item))
    if not isinstance(item, str):
        raise ValueError(f"its {what} is of type {type(item).__name__}; expected text")
    return item.strip() if any(sign.isprintable() and not sign.isspace() for sign in item) else ""


def _of_record(record: Mapping[str, Any]) -> Any:
    return next((record[key] for key in _TEXT_KEYS if key in record), None)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _whole(value: Any) -> Any:
    """A whole number as such: a gap in a CSV file's column makes floats of its numbers."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def is_missing(value: Any) -> bool:
    """Whether there is nothing in a column's place."""
    return value is None or isinstance(value, float) and isnan(value)


def _label_reader(
    settings: EntailmentSettings, column: str, features: Any, classes: Sequence[str]
) -> Callable[[Mapping[str, Any]], str]:
    names = settings.class_names or getattr(features[column], "names", None)
    dtype = str(getattr(features[column], "dtype", ""))
    if names is None and dtype.startswith(("int", "uint", "float")):
        names = sorted(classes, key=str.lower)
        if [name.lower() for name in names] != ["false", "true"]:  # these are 0 and 1 everywhere
            raise ValueError(
                f"Column {column!r} has numbers and no names for them; say what they mean from 0 on, such as "
                f"--class_names {' '.join(classes)}, in the order of the data."
            )
    canonical = {name.lower(): name for name in classes}

    def read(row: Mapping[str, Any]) -> str:
        value = row[column]
        if is_missing(value) or isinstance(value, str) and not value.strip():
            raise ValueError(f"it has no label ({value!r})")
        value = _whole(value)
        if names is not None and isinstance(value, int) and not isinstance(value, bool):
            value = names[value] if 0 <= value < len(names) else f"class {value}"
        name = canonical.get(str(value).strip().lower())
        if name is None:
            raise ValueError(f"its label is {value!r}; the classes are {', '.join(classes)}")
        return name

    return read


def _group(value: Any, parts: Sequence[int]) -> str:
    pieces = str(value).split("-")
    if not parts:
        return str(value)
    if max(parts) >= len(pieces):
        raise ValueError(f"its group is {value!r}, which has no part {max(parts)} between dashes")
    return "-".join(pieces[part] for part in parts)
