"""What `cbvila finetune TASK` and `cbvila evaluate TASK` have in common."""

from collections.abc import Callable
from typing import Any

from .parsing import Parser


def parse_task(command: str, example: str, argv: list[str]) -> str:
    """The task that a command is for; its own help, without one."""
    from ..data.task_settings import SETTINGS

    parser = Parser(
        prog=f"cbvila {command}",
        usage=f"cbvila {command} TASK [--config RECIPE.yaml] [OPTION VALUE ...]",
        description=f"{command.capitalize()} a model for a task.",
        epilog=example,
    )
    parser.add_argument("task", choices=SETTINGS, metavar="TASK", help=f"one of {', '.join(SETTINGS)}")
    return parser.parse_args(argv[:1]).task


def task_parts(task: str, example: str) -> tuple[Any, str, Callable[[str | None], dict[str, Any]]]:
    """The settings class of a task, the end of its help, and what its protocols set."""
    from ..data.task_settings import SETTINGS
    from ..evaluation.protocols import PROTOCOLS, protocol_defaults

    named = "".join(f"\n  {name}: {p.text}" for name, p in PROTOCOLS.items() if p.task == task)
    lines = f"{example}\nprotocols (--protocol):{named}\n"
    return SETTINGS[task], lines, lambda name: protocol_defaults(task, name)
