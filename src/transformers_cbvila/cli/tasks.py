"""What `cbvila finetune TASK` and `cbvila evaluate TASK` have in common."""

from collections.abc import Callable
from typing import Any

from .parsing import Parser


def parse_task(command: str, example: str, argv: list[str]) -> Any:
    """Returns the task's class that a command is for; prints the command's own help without one."""
    from ..tasks.registry import TASKS

    parser = Parser(
        prog=f"cbvila {command}",
        usage=f"cbvila {command} TASK [--config RECIPE.yaml] [OPTION VALUE ...]",
        description=f"{command.capitalize()} a model for a task.",
        epilog=example,
    )
    parser.add_argument("task", choices=TASKS, metavar="TASK", help=f"one of {', '.join(TASKS)}")
    if not argv or (argv[0].startswith("-") and argv[0].partition("=")[0] not in parser._option_string_actions):
        parser.error(f"the following arguments are required: TASK, which comes first: one of {', '.join(TASKS)}")
    return TASKS[parser.parse_args(argv[:1]).task]


def task_parts(task: Any, example: str) -> tuple[str, Callable[[str | None], dict[str, Any]]]:
    """Returns the end of a task's help, and what gives the options that its protocols set."""
    from ..tasks.protocol_checks import protocol_options

    named = "".join(f"\n  {name}: {protocol.text}" for name, protocol in task.protocols.items())
    end = f"{example}\nprotocols (--protocol):{named}\n" if named else example
    return end, lambda name: protocol_options(task, name)
