"""The `cbvila evaluate` job: a fine-tuned model and data in, figures in a JSON file out."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..bundled import checkpoint_source
from ..data.source_rows import usual_split
from ..data.task_rows import load_task_rows
from ..data.task_settings import QuestionSettings, Repeatable
from ..data.task_texts import check_texts, texts_of_rows
from ..data.unknown_texts import warn_of_unknown_tokens
from ..devices import placed
from ..model.configuration_cbvila import CBViLAConfig
from ..model.modeling_cbvila_classification import ENTAILMENT_LABELS, REASONING_LABELS, with_labels
from ..model.modeling_cbvila_image_text_retrieval import CBViLAForImageTextRetrieval
from ..model.modeling_cbvila_question_answering import CBViLAForQuestionAnswering
from ..model.modeling_cbvila_visual_entailment import CBViLAForVisualEntailment
from ..model.modeling_cbvila_visual_reasoning import CBViLAForVisualReasoning
from ..model.processing_cbvila import CBViLAProcessor
from ..output_files import require_folder, write_json
from .protocols import check_protocol
from .task_figures import Figures, TaskEvaluation

HEADS: dict[str, Any] = {
    "vqa": CBViLAForQuestionAnswering,
    "retrieval": CBViLAForImageTextRetrieval,
    "entailment": CBViLAForVisualEntailment,
    "reasoning": CBViLAForVisualReasoning,
}
_CLASSES = {"entailment": ENTAILMENT_LABELS, "reasoning": REASONING_LABELS}
# Trained with the weights that retrieval reads: such a checkpoint is evaluated without fine-tuning ("zero-shot").
_ZERO_SHOT = {"retrieval": "CBViLAForPreTraining"}


@dataclass
class EvaluationJob:
    """What to evaluate on what."""

    model: str = field(
        metadata={
            "help": "Folder, Hub id, or the name of a bundled checkpoint: a fine-tuned model, or for retrieval a "
            "pretrained one, too (zero-shot)."
        }
    )
    data: list[str] = field(
        metadata={
            "help": "Folders, Parquet, JSON Lines, CSV, TSV or WebDataset .tar files, Hub ids (user/name@revision), "
            "or easy-vqa."
        }
    )
    output: str | None = field(
        default=None, metadata={"help": "JSON file to write the figures to; without, they are printed only."}
    )
    split: str | None = field(
        default=None, metadata={"help": "Split of the data; default: test, else validation, else the only one."}
    )
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

    def __post_init__(self):
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size} must be positive.")


def evaluate_task(task: str, job: EvaluationJob, settings: Any, progress: bool = True) -> Figures:
    """Evaluates a model, writes the figures to `job.output`, if there is one, and returns them.

    Args:
        task: `vqa`, `retrieval`, `entailment` or `reasoning`.
        job: Model and data.
        settings: The task's, see `data/task_settings.py`.
        progress: Whether to show bars.

    Raises:
        FileNotFoundError: If a source, or the folder of the output, isn't there.
        ValueError: If the model has no trained head for the task, the data lack a column, a row is bad, or the data
            are not those of the protocol.
    """
    if job.folder is not None and task != "retrieval":
        raise ValueError(f"folder={job.folder} is for retrieval; {task} keeps nothing, so leave it out.")
    require_folder("output", job.output)
    model, processor = load_trained(task, job.model)
    settings = _with_trained_length(job.model, settings)
    classes = task_classes(task, model.config)
    check_num_images(task, model.config, settings)
    split = job.split or usual_split(job.data)
    rows = load_task_rows(job.data, split, settings, classes)
    rows = check_texts(rows, processor, settings.skip_bad_rows)
    warn_of_unknown_tokens(processor.tokenizer, texts_of_rows(rows), "texts")
    check_protocol(job.protocol, settings, rows)
    train_rows = None
    if job.train_data:
        conditions = replace(settings, where=job.train_where)  # not those of the data: floors would know their answers
        train_rows = load_task_rows(job.train_data, job.train_split, conditions, classes)
    elif task != "retrieval":
        print("Without train_data there is no text-only floor: what the texts alone give away is not measured.")
    evaluation = TaskEvaluation(settings, train_rows, job.batch_size, job.seed, progress, job.folder, job.protocol)
    figures = {
        "task": task,
        "model": Path(job.model).name,
        "data": " ".join(Path(name).name for name in job.data),
        "split": split,
        "protocol": job.protocol or "own",
        "zero_shot": _architecture(model.config) == _ZERO_SHOT.get(task),
        **evaluation.figures(model, processor, rows),
        "skipped_rows": len(rows.skipped),
    }
    if rows.skipped:
        print(rows.summary_of_skipped())
    if job.output is not None:
        write_json(job.output, figures)
    return figures


def load_trained(task: str, name: str) -> tuple[Any, CBViLAProcessor]:
    """The task's head of a checkpoint that was trained for it, on the accelerator if there is one, and the processor.

    Raises:
        ValueError: If the checkpoint has another head.
    """
    source, head = checkpoint_source(name), HEADS[task]
    architecture = _architecture(CBViLAConfig.from_pretrained(source))
    if architecture not in (None, head.__name__, _ZERO_SHOT.get(task)):
        raise ValueError(
            f"{name} is a {architecture}, which was not trained for {task}; fine-tune it with "
            f"`cbvila finetune {task}` and evaluate what that writes, a {head.__name__}."
        )
    return placed(head.from_pretrained(source)), CBViLAProcessor.from_pretrained(source)


def _with_trained_length(name: str, settings: Any) -> Any:
    """The settings with texts as long as in the model's training, unless another length was given, which is said."""
    record = Path(checkpoint_source(name)) / "finetuning.json"
    trained = json.loads(record.read_text(encoding="utf-8")).get("settings", {}) if record.is_file() else {}
    cuts = not isinstance(settings, QuestionSettings)  # of which evaluation takes as much as the model does
    if not cuts or "max_length" not in trained or trained["max_length"] == settings.max_length:
        return settings
    length = trained["max_length"]
    if not settings.is_given("max_length"):
        print(f"max_length {length}: texts are cut as in the fine-tuning of {name}.")
        return replace(settings, max_length=length)
    print(
        f"{name} was fine-tuned on texts of up to {length} tokens, and is measured on up to {settings.max_length}: "
        f"--max_length {length} measures on the same."
    )
    return settings


def task_classes(task: str, config: CBViLAConfig) -> tuple[str, ...]:
    """Names of the classes of a task: the model's own, or what its head takes when it is made anew."""
    if task not in _CLASSES:
        return ()
    return tuple((with_labels(config, _CLASSES[task], HEADS[task].__name__).id2label or {}).values())


def check_num_images(task: str, config: CBViLAConfig, settings: Any) -> None:
    """Raises a ValueError if a reasoning model was trained with another number of images than the data have."""
    if task == "reasoning" and config.num_images != settings.num_images:
        raise ValueError(
            f"The model judges {config.num_images} image(s) at a time, and the data have {settings.num_images}; set "
            "image_column (one for each image) and image_parts as in its training."
        )


def _architecture(config: CBViLAConfig) -> str | None:
    return config.architectures[0] if config.architectures else None
