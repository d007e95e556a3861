"""`cbvila demo`."""

import shlex
from typing import Any, NoReturn

from . import finetune
from .parsing import Parser

DEFAULTS = {
    "--config": "finetune-vqa-easy",
    "--model": "cbvila-tiny",
    "--train_data": "easy-vqa",
    "--output_dir": "runs/demo",
    "--report_to": "none",
}
EXAMPLE = """\
example:
  cbvila demo
  cbvila demo --output_dir runs/demo-scratch --from_scratch

It is a report over two commands, which know many more options:
  cbvila finetune vqa --config finetune-vqa-easy --model cbvila-tiny --train_data easy-vqa --output_dir runs/demo
  cbvila evaluate vqa --model runs/demo --data easy-vqa --split test --train_data easy-vqa
"""
INTERRUPTED = "Interrupted. The last checkpoint is kept: the same command goes on from it."
# Options that the demo had, and their names in `cbvila finetune vqa`.
_FORMER = {
    "--epochs": "--num_train_epochs",
    "--closed_questions": "--closed_questions",
    "--images_per_batch": "--per_device_train_batch_size",
    "--learning_rate": "--learning_rate",
    "--seed": "--seed",
    "--model": "--model",
}


class _DemoParser(Parser):
    def error(self, message: str) -> NoReturn:
        """Names the command that has an option that the demo had."""
        former = next((old for old in _FORMER if f"option '{old}'" in message), None)
        if former is not None:
            message += f"; `cbvila finetune vqa --config finetune-vqa-easy {_FORMER[former]} …` has it"
        super().error(message)


def parse(argv: list[str]) -> tuple[Any, ...]:
    """Returns the task, the job, the training arguments, and the command as the report shows it."""
    parser = _DemoParser(prog="cbvila demo", description="Fine-tune on easy-VQA, evaluate, report.", epilog=EXAMPLE)
    parser.add_argument("--output_dir", default=DEFAULTS["--output_dir"], help="folder of checkpoints, model, report")
    parser.add_argument("--from_scratch", action="store_true", help="start from random weights, as a baseline")
    parser.add_argument("--max_steps", type=int, help="stop after that many steps (a quick look)")
    options = parser.parse_args(argv)
    given = {**DEFAULTS, "--output_dir": options.output_dir, "--from_scratch": str(options.from_scratch)}
    if options.max_steps is not None:
        given["--max_steps"] = str(options.max_steps)
    task, job, args = finetune.parse(["vqa", *(word for pair in given.items() for word in pair), "--resume"])
    return task, job, args, shlex.join(["cbvila", "demo", *argv])


def run(task: Any, job: Any, args: Any, command: str) -> int:
    """Runs the demo, and returns the exit status."""
    from ..demo.demo import run_demo

    print(f"Report: {run_demo(task, job, args, command)}")
    return 0
