"""The class names of a configuration, `id2label` and `label2id`.

transformers fills in LABEL_0 and LABEL_1 by default. Classification heads replace these by names of their own, but
keep what a user chose, even if it looks the same. Chosen names therefore have their own type, [`ChosenClasses`].
"""

from typing import Any

from .messages_cbvila import shown

CLASS_FIELDS = ("id2label", "label2id")


class ChosenClasses(dict):
    """An `id2label` or `label2id` that a user chose; otherwise a plain dictionary."""

    @classmethod
    def of(cls, field: str, value: Any) -> "ChosenClasses":
        """Returns the value of `field` with ids as integers (JSON has strings), ordered by id.

        Args:
            field: `"id2label"` or `"label2id"`.
            value: A mapping.

        Raises:
            ValueError: If the ids are not consecutive from 0, or two names are equal.
        """
        advice = 'expected ids from 0 on with a name each, such as {0: "no", 1: "yes"}'
        try:
            ids = value if field == "id2label" else {i: name for name, i in value.items()}
            names = {int(i): name for i, name in ids.items()}
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{field} is {shown(value)}; {advice}.") from error
        distinct = len(set(map(str, names.values()))) == len(value)
        if sorted(names) != list(range(len(value))) or not value or not distinct:
            raise ValueError(f"{field} is {shown(value)}; {advice}, all of them different.")
        ordered = {i: names[i] for i in sorted(names)}
        return cls(ordered if field == "id2label" else {name: i for i, name in ordered.items()})


def generic_names(number: Any) -> list[str]:
    """Returns the default names of transformers for a number of classes: LABEL_0, LABEL_1 and so on.

    Raises:
        ValueError: If `number` is not a positive integer.
    """
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(f"num_labels={shown(number)} is no number of classes: choose 1 or more.")
    return [f"LABEL_{i}" for i in range(number)]


def both_fields(kind: type, names: Any) -> dict[str, Any]:
    """Returns `id2label` and `label2id` for class names in order."""
    return {"id2label": kind(enumerate(names)), "label2id": kind((name, i) for i, name in enumerate(names))}


def check_consistent_classes(given: dict[str, Any]) -> None:
    """Raises a ValueError if `num_labels`, `id2label` and `label2id` contradict each other."""
    chosen = {name: ChosenClasses.of(name, given[name]) for name in CLASS_FIELDS if name in given}
    ids = {name: value if name == "id2label" else invert(value) for name, value in chosen.items()}
    if len(ids) == 2 and ids["id2label"] != ids["label2id"]:
        raise ValueError(
            f"id2label is {shown(given['id2label'])} and label2id {shown(given['label2id'])}: they contradict each "
            "other. Leave one of them out."
        )
    number = given.get("num_labels")
    for name, value in ids.items():
        if number is not None and number != len(value):
            raise ValueError(f"num_labels={shown(number)}, and {name} has {len(value)} classes: leave one out.")


def invert(names: dict) -> dict:
    """Returns the `id2label` of a `label2id`, or the reverse."""
    return {value: key for key, value in names.items()}
