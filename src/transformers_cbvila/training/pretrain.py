"""The job of `cbvila pretrain`: from sources of data to the folder of a pretrained model."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from transformers import set_seed

from ..data import option_texts
from ..data.collators import CBViLADataCollatorForPreTraining
from ..data.measured_pairs import MeasuredPairs
from ..data.mixing import check_weights, concatenate, interleave
from ..data.pairs import ImageTextPairs
from ..data.sources import load_pair_stream, load_pairs
from ..data.streams import StreamedImageTextPairs
from ..data.training_texts import training_texts
from ..data.unknown_texts import warn_of_unknown_tokens
from ..metric_lines import print_metrics
from ..model.messages_cbvila import shown
from ..output_files import write_json
from .arguments import CBViLATrainingArguments
from .inherited_options import WITH_EVALUATION, refuse
from .pretraining_evaluation import EvaluationOptions, held_out_pairs
from .pretraining_start import starting_model
from .pretraining_trainer import PretrainingTrainer
from .runs.checkpoints import checkpoint_to_resume
from .runs.progress import log_main_process
from .runs.run_record import run_record
from .view_options import ViewOptions

_CHECKED_ROWS = 1000  # of a stream, whose captions are checked for unknown tokens


@dataclass
class PretrainingJob(EvaluationOptions, ViewOptions):
    """Data, model and corruption of pretraining; the rest is [`CBViLATrainingArguments`]."""

    train_data: list[str] = field(metadata={"help": f"{option_texts.SOURCES}; several are mixed."})
    train_data_weights: list[float] = field(
        default_factory=list,
        metadata={
            "help": "How often rows of each of train_data come, relative to each other: '2 1' takes two of the first "
            "for one of the second, whatever their sizes, and a pass ends when every row has come. Without, every row "
            "comes once in a pass; a stream takes rows of each in turn, so that the largest is alone in the end."
        },
    )
    train_split: str = field(default="train", metadata={"help": option_texts.TRAIN_SPLIT})
    image_column: str = field(default="image", metadata={"help": option_texts.IMAGE_COLUMN})
    caption_column: str | None = field(default=None, metadata={"help": option_texts.CAPTION_COLUMN})
    keyword_columns: list[str] = field(
        default_factory=list, metadata={"help": "Columns with keywords, some of which are added to the caption."}
    )
    skip_bad_rows: bool = field(
        default=False,
        metadata={
            "help": "Let another row take the place of one with a missing or broken image, and leave out rows whose "
            "caption is not a text; they are counted. Without, such a row is an error that names it."
        },
    )
    streaming: bool = field(
        default=False,
        metadata={
            "help": "Read the data as a stream, without a copy on disk; needs max_steps. Each process and loader "
            "worker reads its own files if their number divides evenly."
        },
    )
    shuffle_buffer: int = field(
        default=1000, metadata={"help": "Rows of a stream from which the next one is drawn, per loader worker."}
    )
    model: str | None = field(
        default=None,
        metadata={
            "help": "Checkpoint to start from (folder, Hub id, or the name of a bundled one, cbvila-tiny), with its "
            "tokenizer and configuration except for what model_config names; without it, random weights."
        },
    )
    model_config: dict | str | None = field(
        default=None,
        metadata={
            "help": "Fields of CBViLAConfig, which replace a checkpoint's if there is one (JSON on the command line, "
            "a mapping in a recipe)."
        },
    )
    preset: str = field(
        default="recommended",
        metadata={"help": "Preset of random weights: recommended, or paper for its literal reading."},
    )
    tokenizer: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub id of a BERT tokenizer, or the name of a bundled checkpoint that has one, for "
            "random weights; without, a vocabulary is trained."
        },
    )
    vocab_size: int = field(
        default=4000, metadata={"help": "Size of the WordPiece vocabulary trained on the texts, for random weights."}
    )
    max_length: int = field(default=30, metadata={"help": "Longest caption in tokens; longer ones are cut."})
    mlm_probability: float = field(default=0.15, metadata={"help": "Share of tokens to predict."})
    mlm_replace: float = field(
        default=0.8, metadata={"help": "Share of those that become [MASK]: 0.8 as in BERT, 1.0 as the paper writes."}
    )
    mim_mask_ratio: float = field(default=0.75, metadata={"help": "Share of patches to hide."})
    text_drop_prob: float = field(
        default=0.0, metadata={"help": "How often pixels and visual words are predicted with an empty caption."}
    )
    keyword_probability: float = field(default=0.5, metadata={"help": "How often keywords are added."})

    def __post_init__(self) -> None:
        if isinstance(self.model_config, str):
            self.model_config = _parsed(self.model_config)
        if not self.train_data:
            raise ValueError("train_data is empty; name at least one folder, file or data set.")
        check_weights(self.train_data_weights, len(self.train_data))
        _ = self.views  # raises early
        self.check_evaluation()


def pretrain(job: PretrainingJob, args: CBViLATrainingArguments) -> Path:
    """Runs the job, or resumes it (`resume_from_checkpoint`), and returns the folder of the trained model.

    Raises:
        ValueError: For a stream without `max_steps`, or columns that the data lack.
    """
    output_dir = Path(args.output_dir or "trainer_output")
    checkpoint = checkpoint_to_resume(args, output_dir)
    trainer = build_trainer(job, args, checkpoint)
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
    metrics = trainer.final_metrics() if job.eval_data else {}
    trainer.save_state()
    pairs: Any = trainer.train_dataset
    if job.skip_bad_rows:
        pairs.share_bad_rows(lambda found: trainer.accelerator.reduce(found.to(args.device), "sum").cpu())
    if pairs.bad_rows:
        log_main_process(args, pairs.summary_of_bad_rows())
    if trainer.is_world_process_zero():
        write_json(output_dir / "pretraining.json", _record(job, trainer, metrics))
        if metrics:
            print_metrics(metrics, "eval_")
    return output_dir


def build_trainer(
    job: PretrainingJob, args: CBViLATrainingArguments, checkpoint: str | None = None
) -> PretrainingTrainer:
    """Returns the trainer of a job, with its data, model and collator, before any training.

    Args:
        job: The job.
        args: Arguments of the training.
        checkpoint: A checkpoint of the same job to go on from, whose vocabulary is used.
    """
    if job.streaming and args.max_steps <= 0:
        raise ValueError(
            "streaming needs max_steps: a stream has no length that epochs could be counted by. 5.1 million pairs, "
            "seen 30 times in batches of 512, are 298,828 steps."
        )
    _check_evaluation(job, args)
    set_seed(args.seed)
    with args.main_process_first(desc="reading the data"):
        sources = _load(job)
    model, processor = starting_model(job, args, sources, checkpoint)
    if args.process_index == 0:
        texts = training_texts(sources, job.train_data, _CHECKED_ROWS, job.train_split)
        warn_of_unknown_tokens(processor.tokenizer, texts, "captions")
    evaluated = _load_evaluated(job, args) if job.eval_data else None
    options: dict[str, Any] = {
        "keyword_probability": job.keyword_probability,
        "skip_bad_rows": job.skip_bad_rows,
        **asdict(job.views),
    }
    pairs: Any
    if job.streaming:
        pairs = StreamedImageTextPairs(
            interleave(sources, job.train_data_weights, args.seed), args.seed, job.shuffle_buffer, **options
        )
    else:
        pairs = ImageTextPairs(concatenate(sources, job.train_data_weights, args.seed), args.seed, **options)
    return PretrainingTrainer(
        model=model,
        args=args,
        train_dataset=pairs,
        eval_dataset=evaluated,
        data_collator=CBViLADataCollatorForPreTraining(
            processor,
            model.config.vision_config.patch_size,
            mlm_probability=job.mlm_probability,
            mlm_replace=job.mlm_replace,
            mim_mask_ratio=job.mim_mask_ratio,
            text_drop_prob=job.text_drop_prob,
            max_length=job.max_length,
        ),
        processing_class=processor,
        rerank_k=job.eval_rerank_k,
    )


def _parsed(model_config: str) -> dict:
    try:
        fields = json.loads(model_config)
    except json.JSONDecodeError as error:
        raise ValueError(f"model_config={shown(model_config)} is no JSON ({error}).") from None
    if not isinstance(fields, dict):
        raise ValueError(
            f"model_config={shown(model_config)} names no fields; expected something like "
            '\'{"quantizer_config": {"size": 256}}\'.'
        )
    return fields


def _check_evaluation(job: PretrainingJob, args: CBViLATrainingArguments) -> None:
    """Refuses options of an evaluation without data; with some, batches are by default as large as in training."""
    if not job.eval_data:
        nothing = (
            "without eval_data pretraining evaluates nothing; name some, or measure the model by `cbvila inspect`"
        )
        refuse(args, [*WITH_EVALUATION, "metric_for_best_model"], nothing)
    elif not args.is_given("per_device_eval_batch_size"):
        args.per_device_eval_batch_size = args.per_device_train_batch_size


def _load_evaluated(job: PretrainingJob, args: CBViLATrainingArguments) -> MeasuredPairs:
    with args.main_process_first(desc="reading the held-out data"):
        pairs = held_out_pairs(job)
    if pairs.skipped:
        log_main_process(args, pairs.summary_of_skipped())
    return pairs


def _record(job: PretrainingJob, trainer: PretrainingTrainer, metrics: dict[str, float]) -> dict[str, Any]:
    """Returns everything needed to repeat the run, without where files lay on this machine, and what it reached."""
    pairs: Any = trainer.train_dataset
    record = {"bad_rows": pairs.bad_rows, "figures": metrics, **run_record(job, trainer)}
    if job.eval_data:
        record["job"] |= {"eval_data": [Path(name).name for name in job.eval_data], "eval_split": job.measured_split}
    return record


def _load(job: PretrainingJob) -> list[Any]:
    load = load_pair_stream if job.streaming else load_pairs
    columns = (job.image_column, job.caption_column, job.keyword_columns)
    return [load(name, job.train_split, *columns, skip_bad_rows=job.skip_bad_rows) for name in job.train_data]
