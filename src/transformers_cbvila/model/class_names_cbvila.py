"""The classes that a configuration names, and whether anybody chose them.

transformers fills in two, LABEL_0 and LABEL_1, when nobody says anything. Heads that classify have names of their own
to put in their place, and must not do so to somebody's choice, which may well look the same: what was chosen is
therefore of a type of its own.
"""

from typing import Any

from .messages_cbvila import shown

CLASS_FIELDS = ("id2label", "label2id")


class ChosenClasses(dict):
    """An `id2label` or a `label2id` that somebody chose; in everything else a dictionary."""

    @classmethod
    def of(cls, field: str, value: Any) -> "ChosenClasses":
        """What somebody gives as `field`, with whole numbers as ids (JSON has texts in their place).

        Raises:
            ValueError: If it does not name the classes from 0 on, each differently.
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
    """The names that transformers gives so many classes.

    Raises:
        ValueError: If it is no number of classes.
    """
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(f"num_labels={shown(number)} is no number of classes: choose 1 or more.")
    return [f"LABEL_{i}" for i in range(number)]


def both_fields(kind: type, names: Any) -> dict[str, Any]:
    """`id2label` and `label2id` of classes with these names, in this order."""
    return {"id2label": kind(enumerate(names)), "label2id": kind((name, i) for i, name in enumerate(names))}


def require_one_story(said: dict[str, Any]) -> None:
    """Raises a ValueError if `num_labels`, `id2label` and `label2id` contradict each other."""
    chosen = {name: ChosenClasses.of(name, said[name]) for name in CLASS_FIELDS if name in said}
    ids = {name: value if name == "id2label" else invert(value) for name, value in chosen.items()}
    if len(ids) == 2 and ids["id2label"] != ids["label2id"]:
        raise ValueError(
            f"id2label is {shown(said['id2label'])} and label2id {shown(said['label2id'])}: they contradict each "
            "other. Leave one of them out."
        )
    number = said.get("num_labels")
    for name, value in ids.items():
        if number is not None and number != len(value):
            raise ValueError(f"num_labels={shown(number)}, and {name} has {len(value)} classes: leave one out.")


def invert(names: dict) -> dict:
    """An `id2label` of a `label2id`, and the other way round."""
    return {value: key for key, value in names.items()}
