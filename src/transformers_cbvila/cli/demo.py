"""`cbvila demo`."""

from typing import Any

EXAMPLE = """\
example:
  cbvila demo --output_dir runs/demo
  cbvila demo --output_dir runs/demo-scratch --from_scratch
"""
INTERRUPTED = "Interrupted. The last checkpoint is kept: the same command goes on from it."


def parse(argv: list[str]) -> tuple[Any, ...]:
    """The job, and the command as the report shows it."""
    from ..demo.easy_vqa import DemoJob, command_line
    from .recipes import parse_job

    job, _ = parse_job("demo", "Fine-tune, evaluate, ask, report.", EXAMPLE, [DemoJob], argv)
    return job, command_line(argv)


def run(job: Any, command: str) -> int:
    from ..demo.easy_vqa import run_demo

    print(f"Report: {run_demo(job, command)}")
    return 0
