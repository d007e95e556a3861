"""The job of `cbvila pretrain`: from sources of data to the folder of a pretrained model."""

from pathlib import Path
from typing import Any

from transformers import set_seed

from ..data.collators import CBViLADataCollatorForPreTraining
from ..data.training_texts import training_texts
from ..data.unknown_texts import warn_of_unknown_tokens
from ..metric_lines import print_metrics
from ..output_files import write_json
from .arguments import CBViLATrainingArguments
from .idle_options import name_idle_options
from .inherited_options import WITH_EVALUATION, refuse
from .label_options import check_classes, label_maps
from .pretraining_data import load_evaluated, load_sources, training_pairs
from .pretraining_job import CHECKED_ROWS, PretrainingJob
from .pretraining_start import starting_model
from .pretraining_trainer import PretrainingTrainer
from .qformer_pretraining import qformer_trainer
from .runs.checkpoints import checkpoint_to_resume
from .runs.progress import log_main_process
from .runs.run_record import run_record


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
        sources = load_sources(job)
    if job.head == "qformer":
        return qformer_trainer(job, args, sources)
    model, processor = starting_model(job, args, sources, checkpoint)
    if args.process_index == 0:
        texts = training_texts(sources, job.train_data, CHECKED_ROWS, job.train_split)
        warn_of_unknown_tokens(processor.tokenizer, texts, "captions")
    uses_classes = model.config.takes_hint("token_classes")
    check_classes(job, model)
    name_idle_options(model, args, job)
    if uses_classes and job.label_model is None:
        with args.main_process_first(desc="reading the label maps"):
            sources = load_sources(job, with_labels=True)
    evaluated = load_evaluated(job, args)
    two_views = model.needs("other_view") or (model.needs("teacher_view") and not job.views.are_all_equal)
    maps = label_maps(job) if uses_classes else None
    return PretrainingTrainer(
        model=model,
        args=args,
        train_dataset=training_pairs(job, args, sources, label_maps=maps, two_views=two_views),
        eval_dataset=evaluated,
        data_collator=CBViLADataCollatorForPreTraining(
            processor,
            model.config.vision_config.patch_size,
            mlm_probability=job.mlm_probability,
            mlm_replace=job.mlm_replace,
            mlm_words=job.mlm_words,
            mlm_words_share=job.mlm_words_share,
            mim_mask_ratio=job.mim_mask_ratio,
            mim_mask_schedule=job.mim_mask_schedule,
            text_drop_prob=job.text_drop_prob,
            max_length=job.max_length,
            masks_words=model.needs("masked_words"),
        ),
        processing_class=processor,
        rerank_k=job.eval_rerank_k,
    )


def _check_evaluation(job: PretrainingJob, args: CBViLATrainingArguments) -> None:
    """Refuses options of an evaluation without data; with some, batches are by default as large as in training."""
    if not job.eval_data:
        nothing = (
            "without eval_data pretraining evaluates nothing; name some, or measure the model by `cbvila inspect`"
        )
        refuse(args, [*WITH_EVALUATION, "metric_for_best_model", "per_device_eval_batch_size"], nothing)
    elif not args.is_given("per_device_eval_batch_size"):
        args.per_device_eval_batch_size = args.per_device_train_batch_size


def _record(job: PretrainingJob, trainer: PretrainingTrainer, metrics: dict[str, float]) -> dict[str, Any]:
    """Returns everything needed to repeat the run, without where files lay on this machine, and what it reached."""
    pairs: Any = trainer.train_dataset
    record = {"bad_rows": pairs.bad_rows, "figures": metrics, **run_record(job, trainer)}
    if job.eval_data:
        record["job"] |= {"eval_data": [Path(name).name for name in job.eval_data], "eval_split": job.measured_split}
    return record
