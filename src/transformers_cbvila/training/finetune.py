"""The `cbvila finetune` job: a pretrained model and a task's data in, a fine-tuned model out."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from transformers import set_seed
from transformers.trainer_utils import IntervalStrategy

from ..data.collators import token_limit
from ..data.given_options import Repeatable, refuse_without
from ..data.option_texts import SOURCES, TRAIN_SPLIT
from ..data.source_rows import usual_split
from ..data.unknown_texts import warn_of_unknown_tokens
from ..metric_lines import print_metrics
from ..model.processing_cbvila import UNLIMITED, CBViLAProcessor
from ..output_files import write_json
from ..tasks.evaluation import Evaluation
from ..tasks.fields import Metrics
from ..tasks.protocol_checks import check_protocol
from ..tasks.row_reading import load_task_rows
from ..tasks.rows import TaskRows
from ..tasks.task import Task
from ..tasks.texts import check_texts, share_with_sides, text_lengths, texts_of_rows
from .arguments import CBViLATrainingArguments
from .runs.checkpoints import checkpoint_to_resume
from .runs.progress import log_main_process
from .runs.run_record import run_record
from .task_defaults import Situation, use_defaults
from .task_models import start_of, starting_model
from .task_trainer import TaskTrainer
from .view_options import ViewOptions

RECORD = "finetuning.json"
_EVALUATING = ("eval_strategy", "eval_on_start", "load_best_model_at_end")
_OF_EVALUATING = ("eval_steps", "eval_delay", "do_eval", "metric_for_best_model", "per_device_eval_batch_size")


@dataclass
class FinetuningJob(ViewOptions):
    """What to fine-tune on what; the rest is the task's settings and [`CBViLATrainingArguments`]."""

    model: str = field(
        metadata={"help": "Checkpoint to start from: folder, Hub id, or the name of a bundled one (cbvila-tiny)."}
    )
    train_data: list[str] = field(metadata={"help": f"{SOURCES}; all rows of all."})
    train_split: str = field(default="train", metadata={"help": TRAIN_SPLIT})
    eval_data: list[str] = field(
        default_factory=list,
        metadata={"help": "Data to measure the task on, at the end and as often as eval_strategy says."},
    )
    eval_split: str | None = field(
        default=None, metadata={"help": "Split of eval_data; default: validation, else test, else the only one."}
    )
    eval_where: list[str] = field(
        default_factory=list,
        metadata={"help": "As where, for eval_data; default: the same conditions.", "action": Repeatable},
    )
    protocol: str | None = field(
        default=None, metadata={"help": "Name of a protocol, listed below, that eval_data are measured by."}
    )
    from_scratch: bool = field(
        default=False,
        metadata={"help": "Start from random weights, with the model's configuration and tokenizer, as a baseline."},
    )
    image_size: int | None = field(
        default=None, metadata={"help": "Side of images in pixels; default: the model's. Positions are interpolated."}
    )
    dropout: float | None = field(
        default=None, metadata={"help": "Dropout of the text and fusion encoders; default: the model's."}
    )

    def __post_init__(self) -> None:
        _ = self.views  # raises early
        if not self.train_data:
            raise ValueError("train_data is empty; name at least one folder, file or data set.")
        refuse_without(self, "eval_data", ("eval_split", "eval_where"))

    @property
    def measured_split(self) -> str:
        """Split of `eval_data`, looked up if none is named."""
        return self.eval_split or usual_split(self.eval_data, ("validation", "test"))


def finetune(task: Task, job: FinetuningJob, args: CBViLATrainingArguments) -> Path:
    """Runs the job (or goes on with it, with `resume_from_checkpoint`) and returns the folder of the trained model.

    Beside the model, `finetuning.json` says what was done, and what `eval_data` gave.

    Args:
        task: The task, with its options.
        job: Model and data.
        args: How to train.

    Raises:
        FileNotFoundError: If a source isn't there.
        ValueError: If data lack a column, a row is bad, or options do not go together.
    """
    output_dir = Path(args.output_dir or "trainer_output")
    checkpoint = checkpoint_to_resume(args, output_dir)
    trainer = build_trainer(task, job, args)
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
    metrics = trainer.evaluate() if job.eval_data else {}
    trainer.save_state()
    if trainer.is_world_process_zero():
        if kept := task.keep_findings(output_dir, metrics, prefix="eval_"):
            log_main_process(args, kept)
        write_json(output_dir / RECORD, _record(task, job, trainer, metrics))
        if metrics:
            print_metrics(metrics, "eval_")
    return output_dir


def build_trainer(task: Task, job: FinetuningJob, args: CBViLATrainingArguments) -> TaskTrainer:
    """Returns the trainer of a job, with its data, model and collator; nothing is trained yet."""
    set_seed(args.seed)
    if not job.eval_data:
        _turn_evaluation_off(task, args)
    elif not args.is_given("metric_for_best_model"):
        _measure_best_by_task(task, args)
    model, processor = starting_model(task, job.model, job.from_scratch, job.image_size, job.dropout)
    with args.main_process_first(desc="reading the data"):
        rows = read_rows(task, job, processor, task.classes(model.config))
    for skipped in (part for part in rows if part is not None and part.skipped):
        log_main_process(args, skipped.summary_of_skipped())
    if args.process_index == 0:
        warn_of_unknown_tokens(processor.tokenizer, texts_of_rows(task, rows.train, training=True))
    _set_defaults(situation_of(task, job, model, processor, rows.train, args), task, job, args)
    if rows.evaluated is not None:
        check_protocol(job.protocol, task, rows.evaluated)
    task.check_evaluation(processor, rows.evaluated, official=job.protocol is not None)
    return TaskTrainer(
        model=model,
        args=args,
        train_dataset=task.training_set(rows.train, args.seed, job.views),
        eval_dataset=rows.evaluated,
        data_collator=task.collator(processor, model.config),
        processing_class=processor,
        task=task,
        evaluation=Evaluation(
            rows.train, args.per_device_eval_batch_size, progress=not args.disable_tqdm, protocol=job.protocol
        ),
    )


class RowsOfJob(NamedTuple):
    """Rows of training, and those that the task is measured on, if any."""

    train: TaskRows
    evaluated: TaskRows | None


def read_rows(task: Task, job: FinetuningJob, processor: CBViLAProcessor, classes: tuple[str, ...]) -> RowsOfJob:
    """Reads the rows of a job, and checks that the tokenizer can take their texts."""
    train = load_task_rows(task, job.train_data, job.train_split, classes)
    train = check_texts(task, train, processor, training=True)
    if not job.eval_data:
        return RowsOfJob(train, None)
    conditions = replace(task, where=job.eval_where or task.where)
    evaluated = load_task_rows(conditions, job.eval_data, job.measured_split, classes)
    return RowsOfJob(train, check_texts(task, evaluated, processor))


def situation_of(
    task: Task,
    job: FinetuningJob,
    model: Any,
    processor: CBViLAProcessor,
    rows: TaskRows,
    args: CBViLATrainingArguments,
) -> Situation:
    """Returns what the defaults of training depend on."""
    positions = getattr(model.config.text_config.get_text_config(), "max_position_embeddings", UNLIMITED)
    limit = token_limit(processor, positions) or positions
    start = "random" if job.from_scratch else start_of(task, job.model)
    examples = len(task.training_set(rows, args.seed, job.views))
    lengths, sided = text_lengths(task, rows, processor), share_with_sides(task, rows)
    return Situation(task.defaults, task.width(model.config), start, examples, lengths, limit, args.world_size, sided)


def _set_defaults(situation: Situation, task: Task, job: FinetuningJob, args: CBViLATrainingArguments) -> None:
    used = use_defaults(situation, job, task, args)
    if used:
        lines = "".join(f"\n  {name} {getattr(value, 'value', value)}: {reason}" for name, value, reason in used)
        log_main_process(args, f"Defaults for {task.name}, of what was not given:{lines}")


def _turn_evaluation_off(task: Task, args: CBViLATrainingArguments) -> None:
    """Turns off what needs eval_data, as recipes ask for it whatever the data, and says so."""
    asked = [name for name in _EVALUATING if getattr(args, name) not in (False, IntervalStrategy.NO)]
    asked += [name for name in _OF_EVALUATING if args.is_given(name)]
    asked += [name for name in sorted(task.evaluation_options) if task.is_given(name)]
    if asked:
        log_main_process(args, f"Without eval_data, {', '.join(asked)} can do nothing.")
    for name in _EVALUATING:
        setattr(args, name, IntervalStrategy.NO if name == "eval_strategy" else False)


def _measure_best_by_task(task: Task, args: CBViLATrainingArguments) -> None:
    """Where a best checkpoint is asked for: Trainer's own choice is the loss, which evaluation does not measure."""
    if args.metric_for_best_model is not None:
        args.metric_for_best_model, args.greater_is_better = task.main_metric, True


def _record(task: Task, job: FinetuningJob, trainer: TaskTrainer, metrics: Metrics) -> dict[str, Any]:
    """Everything needed to repeat the run, without where files lay on this machine."""
    record = run_record(job, trainer)
    record["job"] |= {"model": Path(job.model).name, "eval_data": [Path(name).name for name in job.eval_data]}
    if job.eval_data:
        record["job"]["eval_split"] = job.measured_split
    skipped: dict[str, Any] = {"train": trainer.evaluation.train_rows, "eval": trainer.eval_dataset}
    return {
        "task": task.name,
        "figures": metrics,
        "skipped_rows": {name: len(rows.skipped) for name, rows in skipped.items() if rows is not None},
        "settings": task.recorded_options(),
        **record,
    }
