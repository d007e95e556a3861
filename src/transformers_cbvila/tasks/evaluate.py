"""The `cbvila evaluate` job: a fine-tuned model and data in, metrics in a JSON file out."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from transformers.utils import logging

from ..bundled import checkpoint_source, class_of_checkpoint
from ..data.given_options import Repeatable, refuse_without
from ..data.option_texts import MEASURED_SPLIT, SOURCES
from ..data.source_rows import split_as_read, usual_split
from ..data.unknown_texts import warn_of_unknown_tokens
from ..devices import placed
from ..model.messages_cbvila import shown
from ..model.processing_cbvila import CBViLAProcessor
from ..output_files import require_folder, write_json, write_json_lines
from ..weights_digest import weights_digest
from .evaluate_rows import evaluate_rows
from .evaluation import Evaluation
from .fields import Metrics
from .protocol_checks import check_protocol
from .row_reading import load_task_rows
from .task import Task
from .texts import check_texts, texts_of_rows
from .training_rows import sources_of_training

logger = logging.get_logger(__name__)


@dataclass
class EvaluationJob:
    """What to evaluate on what."""

    model: str = field(
        metadata={
            "help": "Folder, Hub id, or the name of a bundled checkpoint: a fine-tuned model, or for retrieval a "
            "pretrained one, too (zero-shot)."
        }
    )
    data: list[str] = field(metadata={"help": f"{SOURCES}."})
    output: str | None = field(
        default=None, metadata={"help": "JSON file to write the figures to; without, they are printed only."}
    )
    split: str | None = field(default=None, metadata={"help": MEASURED_SPLIT})
    protocol: str | None = field(
        default=None, metadata={"help": "Name of a protocol, listed below; it sets options and checks the data."}
    )
    train_data: list[str] = field(default_factory=list, metadata={"help": "Training data, for floors that know them."})
    train_split: str = field(default="train", metadata={"help": "Split of train_data."})
    train_where: list[str] = field(
        default_factory=list,
        metadata={
            "help": "As where, for train_data: 'split=train'; default: all rows, whatever where says.",
            "action": Repeatable,
        },
    )
    batch_size: int = field(default=32, metadata={"help": "Rows at a time."})
    seed: int = field(default=0, metadata={"help": "Seed of the bootstrap intervals."})
    folder: str | None = field(
        default=None,
        metadata={
            "help": "Of retrieval: where to keep what is encoded and matched, for more than memory holds (COCO at "
            "base size: 9 GB); 5 bytes for each pair of an image and a text stay in memory (COCO: 0.6 GB). Killed, "
            "the same command goes on; delete it afterwards."
        },
    )
    predictions: str | None = field(
        default=None,
        metadata={"help": "JSON Lines file to write what was predicted to, a line for each question or row."},
    )

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size} must be positive.")
        refuse_without(self, "train_data", ("train_split", "train_where"))


def evaluate_task(task: Task, job: EvaluationJob, progress: bool = True, together: bool = False) -> Metrics:
    """Evaluates a model, writes the metrics to `job.output`, if there is one, and returns them.

    Args:
        task: The task, with its options.
        job: Model and data.
        progress: Whether to show bars.
        together: Whether all processes of torch's group, which call this together, share the work.

    Raises:
        FileNotFoundError: If a source, or the folder of the output, isn't there.
        ValueError: If the model has no trained head for the task, the data lack a column, a row is bad, or the data
            are not those of the protocol.
    """
    if job.folder is not None and not task.resumes_evaluation:
        raise ValueError(f"folder={job.folder}: {task.name} keeps no finished work in a folder, so leave it out.")
    if together and not task.shares_evaluation:
        raise ValueError(f"{task.name} is evaluated by one process: start it without accelerate launch.")
    if together and job.folder is not None:
        raise ValueError(f"folder={job.folder}: several processes keep nothing in a folder; leave it out, or use one.")
    if job.predictions is not None and not task.has_predictions:
        raise ValueError(f"predictions={job.predictions}: {task.name} predicts nothing row by row, so leave it out.")
    if job.train_data and not task.has_baselines:
        raise ValueError(
            f"train_data={shown(job.train_data)}: {task.name} has no floor that training data change; leave it out."
        )
    require_folder("output", job.output)
    require_folder("predictions", job.predictions)
    source = checkpoint_source(job.model)
    model, processor = load_trained(task, job.model)
    task = _with_trained_length(job.model, task)
    task.check_model(model.config)
    classes, split = task.classes(model.config), job.split or usual_split(job.data)
    rows = check_texts(task, load_task_rows(task, job.data, split, classes), processor)
    warn_of_unknown_tokens(processor.tokenizer, texts_of_rows(task, rows), "texts")
    check_protocol(job.protocol, task, rows)
    trained_on = sources_of_training(job.model, job.data, split, task.where)
    if trained_on:
        logger.warning(
            f"{', '.join(trained_on)} is in the training data of {job.model} (finetuning.json): what is measured on "
            "rows of its training says nothing about others."
        )
    train_rows = None
    if job.train_data:
        # not the conditions of the data: baselines would know their answers
        train_rows = load_task_rows(replace(task, where=job.train_where), job.train_data, job.train_split, classes)
    elif task.has_text_baseline:
        print("Without train_data there is no text-only floor: what the texts alone give away is not measured.")
    how = Evaluation(train_rows, job.batch_size, job.seed, progress, job.folder, job.protocol, together)
    measured = evaluate_rows(task, model, processor, rows, how)
    metrics = {
        "task": task.name,
        "model": Path(job.model).name,
        "data": " ".join(Path(name).name for name in job.data),
        "split": split_as_read(job.data, split),
        "trained_on": bool(trained_on),
        "protocol": job.protocol or "own",
        "zero_shot": class_of_checkpoint(source) in task.zero_shot_heads,
        **measured.metrics,
        "skipped_rows": len(rows.skipped),
    }
    if rows.skipped:
        print(rows.summary_of_skipped())
    if job.output is not None:
        write_json(job.output, metrics | {"weights": weights_digest(source)})
    if job.predictions is not None:
        write_json_lines(job.predictions, measured.predictions)
    return metrics


def load_trained(task: Task, name: str) -> tuple[Any, CBViLAProcessor]:
    """Returns a checkpoint's model, on the accelerator if there is one, and its processor.

    Raises:
        ValueError: If the checkpoint has another head than the task's.
    """
    source = checkpoint_source(name)
    architecture = class_of_checkpoint(source)
    if architecture not in (None, task.head.__name__, *task.zero_shot_heads):
        raise ValueError(
            f"{name} is a {architecture}, which was not trained for {task.name}; fine-tune it with "
            f"`cbvila finetune {task.name}` and evaluate what that writes, a {task.head.__name__}."
        )
    model = placed(task.head.from_pretrained(source, **task.loading_options()))
    return model, task.processor_class().from_pretrained(source, **task.loading_options())


def _with_trained_length(name: str, task: Task) -> Task:
    """The task with texts as long as in the model's training, unless another length was given, which is said."""
    used = getattr(task, "max_length", None)
    record = Path(checkpoint_source(name)) / "finetuning.json"
    if "max_length" in task.training_options or not record.is_file():
        return task
    trained = json.loads(record.read_text(encoding="utf-8")).get("settings", {}).get("max_length", used)
    if trained == used:
        return task
    if not task.is_given("max_length"):
        print(f"max_length {trained}: texts are cut as in the fine-tuning of {name}.")
        return replace(task, **{"max_length": trained})
    print(
        f"{name} was fine-tuned on texts of up to {trained} tokens, and is measured on up to {used}: "
        f"--max_length {trained} measures on the same."
    )
    return task
