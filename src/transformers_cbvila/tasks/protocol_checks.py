"""What a protocol sets, and whether options and rows are those of it."""

from typing import Any

from ..model.messages_cbvila import shown
from .rows import TaskRows
from .task import Task

_OWN_METRICS = "Leave --protocol out for figures of your own."


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
