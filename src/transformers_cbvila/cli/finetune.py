"""`cbvila finetune TASK`."""

from typing import Any

from .tasks import parse_task, task_parts

EXAMPLE = """\
example:
  cbvila finetune retrieval --model cbvila-tiny --train_data scenes --eval_data scenes --output_dir runs/scenes
  cbvila finetune retrieval --config finetune-retrieval-emoji --model cbvila-tiny \\
      --train_data data/emoji --eval_data data/emoji --output_dir runs/emoji --resume
  cbvila finetune vqa --model cbvila-tiny --train_data questions.jsonl --image_column photo \\
      --question_column question --answer_column answers --output_dir runs/vqa
  cbvila finetune entailment --model cbvila-tiny --train_data pairs.parquet --text_column hypothesis \\
      --label_column label --eval_data pairs_dev.parquet --output_dir runs/entailment
  cbvila finetune reasoning --model cbvila-tiny --train_data data --image_column left_image \\
      --image_column right_image --text_column sentence --label_column label --output_dir runs/reasoning

What is not given is in the recipe, or fits the task, the model and the data, and is printed with its reasons: learning
rate, batch size, epochs, views, length of texts. `--from_scratch`
is the baseline of random weights at the same budget.
"""
INTERRUPTED = "Interrupted. The last checkpoint is kept: the same command with --resume goes on from it."


def parse(argv: list[str]) -> tuple[Any, ...]:
    """Returns the task with its options, the job, and the training arguments."""
    kind = parse_task("finetune", EXAMPLE, argv)
    from ..training.arguments import CBViLATrainingArguments
    from ..training.finetune import FinetuningJob
    from ..training.option_checks import OF_PRETRAINING
    from .job_options import parse_job

    end, preset = task_parts(kind, EXAMPLE)
    parts = [FinetuningJob, kind, CBViLATrainingArguments]
    command = f"finetune {kind.name}"
    job, task, args, rest = parse_job(command, kind.__doc__, end, parts, argv[1:], preset, OF_PRETRAINING)
    if rest.resume:
        args.resume_from_checkpoint = "True"
    return task, job, args


def run(task: Any, job: Any, args: Any) -> int:
    """Fine-tunes, and returns the exit status."""
    from ..training.finetune import finetune

    print(f"Trained model: {finetune(task, job, args)}")
    return 0
