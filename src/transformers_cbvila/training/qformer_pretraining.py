"""Pretraining of a Q-Former, BLIP-2's first stage: `cbvila pretrain --head qformer`."""

from typing import Any

from ..data.qformer_collator import CBViLADataCollatorForQFormerPreTraining
from ..data.training_texts import training_texts
from ..data.unknown_texts import warn_of_unknown_tokens
from ..inspection.qformer_measure import inspect_qformer
from .arguments import CBViLATrainingArguments
from .pretraining_data import load_evaluated, training_pairs
from .pretraining_job import CHECKED_ROWS, PretrainingJob
from .pretraining_trainer import PretrainingTrainer
from .qformer_start import starting_qformer
from .runs.progress import log_main_process


class QFormerTrainer(PretrainingTrainer):
    """[`PretrainingTrainer`] whose evaluation gives the losses of a Q-Former and retrieval by its queries."""

    def _measure(self, rows: Any, progress: bool) -> dict[str, float]:
        processor: Any = self.processing_class
        batch_size = self.args.per_device_eval_batch_size
        return inspect_qformer(self.unwrapped_model, processor, rows, batch_size, progress=progress)


def qformer_trainer(job: PretrainingJob, args: CBViLATrainingArguments, sources: list[Any]) -> QFormerTrainer:
    """Returns the trainer of a job with `head="qformer"`, before any training.

    Args:
        job: The job.
        args: Arguments of the training.
        sources: Pairs of the training data.
    """
    changes: Any = job.model_config  # a mapping: the job has read strings
    model, processor, said = starting_qformer(job.model or "", changes)
    log_main_process(args, said)
    if args.process_index == 0:
        texts = training_texts(sources, job.train_data, CHECKED_ROWS, job.train_split)
        warn_of_unknown_tokens(processor.tokenizer, texts, "captions")
    return QFormerTrainer(
        model=model,
        args=args,
        train_dataset=training_pairs(job, args, sources),
        eval_dataset=load_evaluated(job, args),
        data_collator=CBViLADataCollatorForQFormerPreTraining(processor, job.max_length),
        processing_class=processor,
    )
