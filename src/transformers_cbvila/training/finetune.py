"""The `cbvila finetune` job: a pretrained model and a task's data in, a fine-tuned model out."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from transformers import set_seed
from transformers.trainer_utils import IntervalStrategy

from ..data.collators import CBViLADataCollatorForQuestionAnswering, token_limit
from ..data.questions import SampledQuestions
from ..data.source_rows import usual_split
from ..data.task_collators import (
    CBViLADataCollatorForImageTextRetrieval,
    CBViLADataCollatorForVisualEntailment,
    CBViLADataCollatorForVisualReasoning,
)
from ..data.task_examples import CaptionedImages, ViewedRows
from ..data.task_rows import TaskRows, load_task_rows
from ..data.task_settings import Repeatable
from ..data.task_texts import check_texts, texts_of_rows, usual_length
from ..data.unknown_texts import warn_of_unknown_tokens
from ..evaluation.figure_lines import print_figures
from ..evaluation.protocols import check_protocol
from ..evaluation.task_evaluation import task_classes
from ..evaluation.task_figures import TaskEvaluation
from ..model.processing_cbvila import CBViLAProcessor
from ..output_files import write_json
from ..retrieval.retrieval_order import keep_better_order
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
MAIN_FIGURE = {"retrieval": "mean_recall", "vqa": "accuracy", "entailment": "accuracy", "reasoning": "accuracy"}


@dataclass
class FinetuningJob(ViewOptions):
    """What to fine-tune on what; the rest is the task's settings and [`CBViLATrainingArguments`]."""

    model: str = field(
        metadata={"help": "Checkpoint to start from: folder, Hub id, or the name of a bundled one (cbvila-tiny)."}
    )
    train_data: list[str] = field(
        metadata={
            "help": "Folders (pictures with a metadata.jsonl or .csv, or with a .txt each; Parquet files; written by "
            "save_to_disk), Parquet, JSON Lines, CSV, TSV or WebDataset .tar files, Hub ids (user/name@revision), or "
            "easy-vqa; all rows of all."
        }
    )
    train_split: str = field(default="train", metadata={"help": "Split of the training data."})
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
    closed_questions: int | None = field(
        default=None,
        metadata={"help": "Of vqa, yes/no questions per image and epoch beside all others; default: all of them."},
    )

    def __post_init__(self):
        _ = self.views  # raises early
        if not self.train_data:
            raise ValueError("train_data is empty; name at least one folder, file or data set.")

    @property
    def measured_split(self) -> str:
        """Split of `eval_data`, looked up if none is named."""
        return self.eval_split or usual_split(self.eval_data, ("validation", "test"))


def finetune(task: str, job: FinetuningJob, settings: Any, args: CBViLATrainingArguments) -> Path:
    """Runs the job (or goes on with it, with `resume_from_checkpoint`) and returns the folder of the trained model.

    Beside the model, `finetuning.json` says what was done, and what `eval_data` gave.

    Args:
        task: `vqa`, `retrieval`, `entailment` or `reasoning`.
        job: Model and data.
        settings: The task's, see `data/task_settings.py`.
        args: How to train.

    Raises:
        FileNotFoundError: If a source isn't there.
        ValueError: If data lack a column, a row is bad, or options do not go together.
    """
    output_dir = Path(args.output_dir or "trainer_output")
    checkpoint = checkpoint_to_resume(args, output_dir)
    trainer = build_trainer(task, job, settings, args)
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
    figures = trainer.evaluate() if job.eval_data else {}
    trainer.save_state()
    if trainer.is_world_process_zero():
        if kept := keep_better_order(output_dir, figures, getattr(settings, "rerank_k", 0), prefix="eval_"):
            log_main_process(args, kept)
        write_json(output_dir / RECORD, _record(task, job, settings, trainer, figures))
        if figures:
            print_figures(figures, "eval_")
    return output_dir


def build_trainer(task: str, job: FinetuningJob, settings: Any, args: CBViLATrainingArguments) -> TaskTrainer:
    """The trainer of a job, with its data, model and collator; nothing is trained yet."""
    set_seed(args.seed)
    if not job.eval_data:
        _evaluate_nothing(args)
    elif not args.is_given("metric_for_best_model"):
        _measure_best_by_task(task, args)
    num_images = settings.num_images if task == "reasoning" else None
    model, processor = starting_model(task, job.model, job.from_scratch, job.image_size, job.dropout, num_images)
    classes = task_classes(task, model.config)
    with args.main_process_first(desc="reading the data"):
        train = load_task_rows(job.train_data, job.train_split, settings, classes)
        train = check_texts(train, processor, settings.skip_bad_rows, training=True)
        test = None
        if job.eval_data:
            conditions = replace(settings, where=job.eval_where or settings.where)
            test = load_task_rows(job.eval_data, job.measured_split, conditions, classes)
            test = check_texts(test, processor, settings.skip_bad_rows)
    for rows in (train, test):
        if rows is not None and rows.skipped:
            log_main_process(args, rows.summary_of_skipped())
    if args.process_index == 0:
        warn_of_unknown_tokens(processor.tokenizer, texts_of_rows(train, training=True))
    _use_defaults(situation_of(task, job, model, processor, train, args), job, settings, args)
    if test is not None:
        check_protocol(job.protocol, settings, test)
    quiet = bool(args.disable_tqdm)
    evaluation = TaskEvaluation(
        settings, train, args.per_device_eval_batch_size, progress=not quiet, protocol=job.protocol
    )
    evaluation.check(processor, test)
    return TaskTrainer(
        model=model,
        args=args,
        train_dataset=training_examples(task, train, job, args.seed),
        eval_dataset=test,
        data_collator=_collator(task, processor, model, settings),
        processing_class=processor,
        evaluation=evaluation,
    )


def _evaluate_nothing(args: CBViLATrainingArguments) -> None:
    """Turns off what needs eval_data, as recipes ask for it whatever the data, and says so."""
    asked = [name for name in _EVALUATING if _is_on(args, name)]
    if asked:
        log_main_process(args, f"Without eval_data, {', '.join(asked)} can do nothing, and is off.")
    for name in _EVALUATING:
        setattr(args, name, IntervalStrategy.NO if name == "eval_strategy" else False)


def _is_on(args: CBViLATrainingArguments, name: str) -> bool:
    return getattr(args, name) not in (False, IntervalStrategy.NO)


def _measure_best_by_task(task: str, args: CBViLATrainingArguments) -> None:
    """Where a best checkpoint is asked for: Trainer's own choice is the loss, which evaluation does not measure."""
    if args.metric_for_best_model is not None:
        args.metric_for_best_model, args.greater_is_better = MAIN_FIGURE[task], True


def situation_of(
    task: str,
    job: FinetuningJob,
    model: Any,
    processor: CBViLAProcessor,
    rows: TaskRows,
    args: CBViLATrainingArguments,
) -> Situation:
    """What the task's defaults depend on."""
    positions = model.config.text_config.max_position_embeddings
    limit = token_limit(processor, positions) or positions
    start = "random" if job.from_scratch else start_of(task, job.model)
    examples = len(training_examples(task, rows, job, args.seed))
    width = model.config.text_config.hidden_size
    return Situation(task, width, start, examples, usual_length(rows, processor), limit, args.world_size)


def _use_defaults(situation: Situation, job: FinetuningJob, settings: Any, args: CBViLATrainingArguments) -> None:
    used = use_defaults(situation, job, settings, args)
    if used:
        lines = "".join(f"\n  {name} {getattr(value, 'value', value)}: {reason}" for name, value, reason in used)
        log_main_process(args, f"Defaults for {situation.task}, of what was not given:{lines}")


def training_examples(task: str, rows: TaskRows, job: FinetuningJob, seed: int) -> Any:
    """The training set of a task: its rows, seen another way every epoch."""
    if task == "retrieval":
        return CaptionedImages(rows, [len(captions) for captions in rows.column("captions")], seed, job.views)
    if task == "vqa":
        return SampledQuestions(rows, job.closed_questions, seed, job.views)
    return ViewedRows(rows, seed, job.views)


def _collator(task: str, processor, model, settings: Any) -> Any:
    if task == "retrieval":
        return CBViLADataCollatorForImageTextRetrieval(processor, settings.max_length)
    if task == "vqa":
        return CBViLADataCollatorForQuestionAnswering(processor, settings.max_length)
    collator = {"entailment": CBViLADataCollatorForVisualEntailment, "reasoning": CBViLADataCollatorForVisualReasoning}
    return collator[task](processor, model.config.id2label, settings.max_length)


def _record(task: str, job: FinetuningJob, settings: Any, trainer: TaskTrainer, figures: dict) -> dict[str, Any]:
    """Everything needed to repeat the run, without where files lay on this machine."""
    record = run_record(job, trainer)
    record["job"] |= {"model": Path(job.model).name, "eval_data": [Path(name).name for name in job.eval_data]}
    if job.eval_data:
        record["job"]["eval_split"] = job.measured_split
    chosen = asdict(settings) | {"image_data": [Path(name).name for name in settings.image_data]}
    if chosen.get("answer_list"):
        chosen["answer_list"] = Path(chosen["answer_list"]).name
    skipped: dict[str, Any] = {"train": trainer.evaluation.train_rows, "eval": trainer.eval_dataset}
    return {
        "task": task,
        "figures": figures,
        "skipped_rows": {name: len(rows.skipped) for name, rows in skipped.items() if rows is not None},
        "settings": chosen,
        **record,
    }
