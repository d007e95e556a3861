"""The tasks that there are, by name: those of the import lines below, and those that other packages register."""

from ..model.messages_cbvila import shown
from ..model.registry_cbvila import classes_by_name
from .task import Task

TASKS: dict[str, type[Task]] = classes_by_name(globals(), Task)


def register_task(task: type[Task]) -> type[Task]:
    """Makes a task from outside the package known by its name; a class decorator.

    Raises:
        ValueError: If it is no task, or another one has the name.
    """
    if not (isinstance(task, type) and issubclass(task, Task)):
        raise ValueError(f"{shown(task)} cannot be registered as a task: it must be a subclass of Task.")
    known = TASKS.setdefault(task.name, task)
    if known is not task:
        raise ValueError(f"name={shown(task.name)} is the name of the task {known.__name__}: choose another.")
    return task
