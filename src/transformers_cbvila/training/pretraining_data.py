"""The rows of a pretraining: those to train on, as examples of an epoch or of a stream, and those to measure."""

from dataclasses import asdict
from typing import Any

from ..data.measured_pairs import MeasuredPairs
from ..data.mixing import concatenate, interleave
from ..data.pairs import ImageTextPairs
from ..data.sources import load_pair_stream, load_pairs
from ..data.streams import StreamedImageTextPairs
from ..model.messages_cbvila import shown
from .arguments import CBViLATrainingArguments
from .held_out_pairs import held_out_pairs
from .pretraining_job import PretrainingJob
from .runs.progress import log_main_process


def load_sources(job: PretrainingJob, with_labels: bool = False) -> list[Any]:
    """Reads the sources of a job, each as pairs or as a stream of them."""
    load = load_pair_stream if job.streaming else load_pairs
    columns = (job.image_column, job.caption_column, job.keyword_columns)
    options: dict[str, Any] = {
        "skip_bad_rows": job.skip_bad_rows,
        "with_labels": with_labels,
        "label_map_column": job.label_map_column if with_labels else None,
    }
    return [load(name, job.train_split, *columns, **options) for name in job.train_data]


def training_pairs(job: PretrainingJob, args: CBViLATrainingArguments, sources: list[Any], **options: Any) -> Any:
    """Returns the examples of a job: [`ImageTextPairs`], or [`StreamedImageTextPairs`] of a stream.

    Args:
        job: The job.
        args: Arguments of the training, of which the seed is used.
        sources: What [`load_sources`] returned.
        options: Of [`PairDraws`], beside those of the job.
    """
    _name_missing_keywords(job, args, sources)
    options |= {
        "keyword_probability": job.keyword_probability,
        "skip_bad_rows": job.skip_bad_rows,
        **asdict(job.views),
    }
    if job.streaming:
        mixed = interleave(sources, job.train_data_weights, args.seed)
        return StreamedImageTextPairs(mixed, args.seed, job.shuffle_buffer, **options)
    return ImageTextPairs(concatenate(sources, job.train_data_weights, args.seed), args.seed, **options)


def _name_missing_keywords(job: PretrainingJob, args: CBViLATrainingArguments, sources: list[Any]) -> None:
    """Logs if there are no keywords, which is no error: a recipe names their columns for other data, too."""
    if job.keyword_columns and not job.streaming and not any(any(source["keywords"]) for source in sources):
        log_main_process(args, f"No row of train_data has keywords: keyword_columns={shown(job.keyword_columns)}.")


def load_evaluated(job: PretrainingJob, args: CBViLATrainingArguments) -> MeasuredPairs | None:
    """Reads the rows that the job measures, if any, and logs which were left out."""
    if not job.eval_data:
        return None
    with args.main_process_first(desc="reading the held-out data"):
        pairs = held_out_pairs(job)
    if pairs.skipped:
        log_main_process(args, pairs.summary_of_skipped())
    return pairs
