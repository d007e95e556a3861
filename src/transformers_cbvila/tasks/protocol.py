"""Protocols of the literature by name, so that two numbers under one name are comparable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..model.messages_cbvila import shown

if TYPE_CHECKING:
    from .rows import TaskRows
    from .task import Task

_OWN_METRICS = "Leave --protocol out for figures of your own."


@dataclass(frozen=True)
class Protocol:
    """One protocol.

    Attributes:
        text: What it is, in a line, with the data set as it stands on the Hub.
        defaults: Of the task's options; what is given wins.
        fixed: Options that make the protocol: giving others is an error.
        counts: How many there may be of what the task counts (`Task.counts`): several numbers where it is measured on
            several sets.
        needed: Options that must be given, whatever their values.
    """

    text: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    needed: tuple[str, ...] = ()


def protocol_options(task: type[Task], name: str | None) -> dict[str, Any]:
    """Returns the options that a protocol sets.

    Raises:
        ValueError: If there is no such protocol for the task.
    """
    if name is None:
        return {}
    if name not in task.protocols:
        known = ", ".join(task.protocols) or "none"
        raise ValueError(f"protocol={shown(name)} is none for {task.name}; there are {known}.")
    return {**task.protocols[name].defaults, **task.protocols[name].fixed}


def check_protocol(name: str | None, task: Task, rows: TaskRows) -> None:
    """Raises a ValueError where options or rows are not those of the protocol: the number would not be comparable."""
    if name is None:
        return
    protocol = task.protocols[name]
    for option, value in protocol.fixed.items():
        if getattr(task, option) != value:
            raise ValueError(f"Under {name}, {option} is {value} and not {getattr(task, option)}. {_OWN_METRICS}")
    for option in protocol.needed:
        if getattr(task, option) is None:
            raise ValueError(f"{name} needs {option}, and none is given. {_OWN_METRICS}")
    counted = task.counts(rows)
    for what, expected in protocol.counts.items():
        if not counted[what] <= set(expected):
            raise ValueError(
                f"{name} is over {_numbers(expected, ' or ')} {what}, and there are {_numbers(counted[what])} here "
                f"({len(rows.skipped)} bad rows left out). --image_id_column puts rows of one image together, --where "
                f"takes a part. {_OWN_METRICS}"
            )


def _numbers(numbers: Any, between: str = ", ") -> str:
    return between.join(f"{number:,}" for number in sorted(numbers))
