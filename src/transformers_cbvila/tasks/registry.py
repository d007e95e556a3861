"""The tasks that there are. A new one is its file and one line here."""

from collections.abc import MutableMapping

from ..late_classes import LateClass, LateClasses
from ..model.messages_cbvila import shown
from .task import Task

# Imported when somebody asks, as their models need torch.
TASKS: MutableMapping[str, type[Task]] = LateClasses(
    {
        "vqa": LateClass("tasks.vqa", "VisualQuestionAnswering"),
        "retrieval": LateClass("tasks.retrieval", "ImageTextRetrieval"),
        "entailment": LateClass("tasks.entailment", "VisualEntailment"),
        "reasoning": LateClass("tasks.reasoning", "VisualReasoning"),
        "captioning": LateClass("tasks.captioning", "Captioning"),
        "generation": LateClass("tasks.generation", "Generation"),
    }
)


def register_task(task: type[Task]) -> type[Task]:
    """Makes a task from outside the package known by its name; a class decorator.

    Raises:
        ValueError: If it is no task, or another one has the name.
    """
    if not (isinstance(task, type) and issubclass(task, Task)):
        raise ValueError(f"{shown(task)} cannot be registered as a task: it must be a subclass of Task.")
    if task.name not in TASKS:
        TASKS[task.name] = task
    elif TASKS[task.name] is not task:
        raise ValueError(
            f"name={shown(task.name)} is the name of the task {TASKS[task.name].__name__}: choose another."
        )
    return task
