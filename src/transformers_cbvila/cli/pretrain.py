"""`cbvila pretrain`."""

from typing import Any

EXAMPLE = """\
example:
  cbvila pretrain --config pretrain-tiny --train_data scenes --max_length 32 --output_dir runs/tiny
  cbvila pretrain --config pretrain-tiny --train_data my_folder --caption_column text \\
      --output_dir runs/mine --max_steps 2000 --save_steps 500 --seed 1 --resume
  cbvila pretrain --model cbvila-tiny --train_data scenes --max_length 32 --max_steps 2000 --output_dir runs/scenes \\
      --eval_data scenes --eval_split validation --eval_strategy steps --eval_steps 500
  cbvila pretrain --config pretrain-qformer-scenes --model runs/scenes --train_data scenes --output_dir runs/qformer
  accelerate launch --num_processes 8 -m transformers_cbvila pretrain --config recipes/pretrain-base.yaml \\
      --train_data "pairs/*.parquet" --image_column image --caption_column captions --output_dir runs/base

scenes and easy-vqa are built in. my_folder holds images and a metadata.jsonl with lines like
  {"file_name": "cat.jpg", "text": "a cat on a sofa"}
The caption column may hold a list of captions instead. Everything not given is in the recipe or has the default below.
"""
INTERRUPTED = "Interrupted. The last checkpoint is kept: the same command with --resume goes on from it."


def parse(argv: list[str]) -> tuple[Any, ...]:
    """Returns the job and its training arguments."""
    from ..training.arguments import CBViLATrainingArguments
    from ..training.pretrain import PretrainingJob
    from .job_options import parse_job

    parts = [PretrainingJob, CBViLATrainingArguments]
    job, args, rest = parse_job("pretrain", "Pretrain CB-ViLA.", EXAMPLE, parts, argv)
    if rest.resume:
        args.resume_from_checkpoint = "True"
    return job, args


def run(job: Any, args: Any) -> int:
    """Trains the model and prints its folder."""
    from ..training.pretrain import pretrain

    print(f"Trained model: {pretrain(job, args)}")
    return 0
