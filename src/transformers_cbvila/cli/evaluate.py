"""`cbvila evaluate TASK`."""

from dataclasses import replace
from typing import Any

from ..metric_lines import print_metrics
from .processes import joined_processes, said_once
from .tasks import parse_task, task_parts

EXAMPLE = """\
example:
  cbvila evaluate retrieval --model cbvila-tiny --data scenes --split confusers --output confusers.json
  cbvila evaluate vqa --model cbvila-tiny-easyvqa --data easy-vqa --train_data easy-vqa --output vqa.json
  cbvila evaluate reasoning --model runs/nlvr1 --data data/nlvr1 --split validation --protocol nlvr1 \\
      --output nlvr1.json
  accelerate launch --num_processes 8 -m transformers_cbvila evaluate retrieval --model runs/mine --data my_coco

The file is flat JSON: each figure with its 95 % interval (_low, _high), what is reached without looking (_floor), and
what the protocol leaves open (metric, rerank_k, gallery_images …). `cbvila evaluate TASK --help` lists the options.
"""


def parse(argv: list[str]) -> tuple[Any, ...]:
    """Returns the task with its options, and the job."""
    kind = parse_task("evaluate", EXAMPLE, argv)
    from ..tasks.evaluate import EvaluationJob
    from .job_options import parse_job

    end, preset = task_parts(kind, EXAMPLE)
    parts, left_out = [EvaluationJob, kind], kind.training_options
    job, task, _ = parse_job(f"evaluate {kind.name}", kind.__doc__, end, parts, argv[1:], preset, left_out)
    return task, job


def run(task: Any, job: Any) -> int:
    """Evaluates, prints the metrics, and returns the exit status."""
    from ..tasks.evaluate import evaluate_task

    with joined_processes() as processes, said_once(processes):
        if not processes.is_main:
            job = replace(job, output=None, predictions=None)
        print_metrics(evaluate_task(task, job, processes.is_main, processes.count > 1))
        if job.output is not None:
            print(f"Figures: {job.output}")
    return 0
