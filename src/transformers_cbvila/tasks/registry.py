"""The tasks that there are. A new one is its file and one line here."""

from ..model.messages_cbvila import shown
from ..model.registry_cbvila import classes_by_name
from .entailment import VisualEntailment as VisualEntailment
from .reasoning import VisualReasoning as VisualReasoning
from .retrieval import ImageTextRetrieval as ImageTextRetrieval
from .task import Task
from .vqa import VisualQuestionAnswering as VisualQuestionAnswering

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
