"""The fields of one row of a task, from the columns as people keep them; each reader says what is wrong with a row."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .task_settings import EntailmentSettings, QuestionSettings, ReasoningSettings, RetrievalSettings

# Columns that are looked for, in this order, when none is named.
USUAL_COLUMNS = {
    "caption_column": ("captions", "caption", "text", "sentences_raw", "sentences"),
    "question_column": ("question",),
    "answer_column": ("answers", "answer", "multiple_choice_answer"),
    "text_column": ("hypothesis", "sentence", "statement", "text", "caption"),
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
        return lambda row: {
            "question": texts_of(row[columns["question_column"]], "question")[:1],
            "answer": [texts_of(row[columns["answer_column"]], "answer")],
        }
    label = _label_reader(settings, columns["label_column"], features, classes)

    def read(row: Mapping[str, Any]) -> Fields:
        fields = {"text": texts_of(row[columns["text_column"]], "text")[0], "label": label(row)}
        if isinstance(settings, ReasoningSettings) and settings.group_column is not None:
            fields["group"] = _group(row[settings.group_column], settings.group_parts)
        return fields

    return read


def texts_of(value: Any, what: str) -> list[str]:
    """Texts from a text, a list of texts, a list of records that hold one each, or a record of lists.

    Raises:
        ValueError: If there is none that has a letter, a digit or a sign to show.
    """
    if isinstance(value, Mapping):
        value = next((value[key] for key in _TEXT_KEYS if key in value), None)
    items = [value] if isinstance(value, str) or not isinstance(value, Sequence) else value
    texts = []
    for item in items:
        if isinstance(item, Mapping):
            item = next((item[key] for key in _TEXT_KEYS if key in item), None)
        if isinstance(item, bool | int | float):
            item = str(item)
        if item is not None and not isinstance(item, str):
            raise ValueError(f"its {what} is of type {type(item).__name__}; expected text")
        if item is not None and any(sign.isprintable() and not sign.isspace() for sign in item):
            texts.append(item.strip())
    if not texts:
        raise ValueError(f"it has no {what} ({value!r})")
    return texts


def _label_reader(
    settings: EntailmentSettings, column: str, features: Any, classes: Sequence[str]
) -> Callable[[Mapping[str, Any]], str]:
    names = settings.class_names or getattr(features[column], "names", None)
    dtype = str(getattr(features[column], "dtype", ""))
    if names is None and dtype.startswith(("int", "uint", "float")):
        raise ValueError(
            f"Column {column!r} has numbers and no names for them; say what they mean from 0 on, such as "
            f"--class_names {' '.join(classes)}, in the order of the data."
        )
    canonical = {name.lower(): name for name in classes}

    def read(row: Mapping[str, Any]) -> str:
        value = row[column]
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
