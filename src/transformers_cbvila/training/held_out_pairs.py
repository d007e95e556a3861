"""The rows that pretraining is measured on while it runs."""

from ..data.measured_pairs import MeasuredPairs
from ..data.mixing import concatenate
from ..data.sources import load_pairs
from ..model.messages_cbvila import shown
from .pretraining_job import PretrainingJob


def held_out_pairs(job: PretrainingJob) -> MeasuredPairs:
    """Returns the rows of `eval_data` to measure; each image is read once, so that a bad one ends no run half-way.

    Raises:
        FileNotFoundError: If a source is a path and isn't there.
        ValueError: If a source lacks the split or a column, or has a bad row and `skip_bad_rows` is off.
    """
    columns = (job.image_column, job.caption_column)
    split, skips = job.measured_split, job.skip_bad_rows
    rows = concatenate([load_pairs(name, split, *columns, skip_bad_rows=skips) for name in job.eval_data])
    count = min(len(rows), job.eval_rows)
    pairs = MeasuredPairs(rows.select([place * len(rows) // count for place in range(count)]), skips)
    if len(pairs) < 2:
        raise ValueError(
            f"eval_data={shown(job.eval_data)} has a single row: a caption is measured against another image's."
        )
    if not skips:
        for index in range(len(pairs)):
            pairs[index]
    return pairs
