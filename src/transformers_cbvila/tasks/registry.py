"""The tasks that there are. A new one is its file and one line here."""

from collections.abc import Iterator, Mapping
from importlib import import_module

from ..model.messages_cbvila import shown
from .task import Task

# By name, the file in this folder and the class: imported when somebody asks, as their models need torch.
_TASKS = {
    "vqa": "vqa.VisualQuestionAnswering",
    "retrieval": "retrieval.ImageTextRetrieval",
    "entailment": "entailment.VisualEntailment",
    "reasoning": "reasoning.VisualReasoning",
}


class TaskRegistry(Mapping[str, type[Task]]):
    """Classes of tasks by name: those of this package, and those that were registered from outside."""

    def __init__(self) -> None:
        self._registered: dict[str, type[Task]] = {}

    def __getitem__(self, name: str) -> type[Task]:
        if name in self._registered:
            return self._registered[name]
        module, _, cls = _TASKS[name].partition(".")
        return getattr(import_module(f".{module}", __package__), cls)

    def __iter__(self) -> Iterator[str]:
        return iter([*_TASKS, *self._registered])

    def __len__(self) -> int:
        return len(_TASKS) + len(self._registered)

    def register(self, task: type[Task]) -> None:
        """Adds a task under its name."""
        self._registered[task.name] = task

    def unregister(self, name: str) -> None:
        """Removes a task from outside the package."""
        del self._registered[name]


TASKS = TaskRegistry()


def register_task(task: type[Task]) -> type[Task]:
    """Makes a task from outside the package known by its name; a class decorator.

    Raises:
        ValueError: If it is no task, or another one has the name.
    """
    if not (isinstance(task, type) and issubclass(task, Task)):
        raise ValueError(f"{shown(task)} cannot be registered as a task: it must be a subclass of Task.")
    if task.name not in TASKS:
        TASKS.register(task)
    elif TASKS[task.name] is not task:
        raise ValueError(
            f"name={shown(task.name)} is the name of the task {TASKS[task.name].__name__}: choose another."
        )
    return task
