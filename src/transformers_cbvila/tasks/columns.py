"""Which columns of a source a task reads: those that its options name, or the first of the usual names."""

from collections.abc import Sequence
from dataclasses import field
from typing import Any

from ..data.column_names import column_help
from ..data.columns import find_column, usual_column
from .task import Task


def column_option(text: str, usual: Sequence[str], **metadata: Any) -> Any:
    """Returns a field of a task that names a column of every row.

    Args:
        text: What is in the column.
        usual: The columns that are looked for, in this order, when none is named: those of `Task.columns`.
        metadata: Further metadata of the option, such as aliases.
    """
    return field(default=None, metadata={"help": column_help(text, usual), **metadata})


def find_columns(task: Task, names: Sequence[str], source: str) -> dict[str, str]:
    """Returns the column of each option of a task that names one, in a source with columns `names`.

    Of its optional columns, those that the source has follow.

    Raises:
        ValueError: If there is none; the message lists the columns that there are.
    """
    found = {
        option: find_column(getattr(task, option), usual, names, source, option)
        for option, usual in task.columns.items()
    }
    optional = {field: usual_column(usual, names) for field, usual in task.optional_columns.items()}
    return found | {field: column for field, column in optional.items() if column is not None}
