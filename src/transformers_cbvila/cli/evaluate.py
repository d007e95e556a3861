"""`cbvila evaluate TASK`."""

from typing import Any

from ..evaluation.figure_lines import print_figures
from .tasks import parse_task, task_parts

EXAMPLE = """\
example:
  cbvila evaluate retrieval --model cbvila-tiny --data data/emoji --split test --output emoji.json
  cbvila evaluate vqa --model cbvila-tiny-easyvqa --data easy-vqa --train_data easy-vqa --output vqa.json
  cbvila evaluate reasoning --model runs/nlvr1 --data data/nlvr1 --split validation --protocol nlvr1 \\
      --output nlvr1.json

The file is flat JSON: each figure with its 95 % interval (_low, _high), what is reached without looking (_floor), and
what the protocol leaves open (metric, rerank_k, gallery_images …). `cbvila evaluate TASK --help` lists the options.
"""


def parse(argv: list[str]) -> tuple[Any, ...]:
    """The task, the job and the task's settings."""
    task = parse_task("evaluate", EXAMPLE, argv)
    from ..evaluation.task_evaluation import EvaluationJob
    from .recipes import parse_job

    settings_class, end, preset = task_parts(task, EXAMPLE)
    parts = [EvaluationJob, settings_class]
    job, settings, _ = parse_job(f"evaluate {task}", settings_class.__doc__, end, parts, argv[1:], preset)
    return task, job, settings


def run(task: str, job: Any, settings: Any) -> int:
    from ..evaluation.task_evaluation import evaluate_task

    print_figures(evaluate_task(task, job, settings))
    if job.output is not None:
        print(f"Figures: {job.output}")
    return 0
