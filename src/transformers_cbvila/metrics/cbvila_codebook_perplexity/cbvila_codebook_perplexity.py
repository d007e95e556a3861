"""Usage and perplexity of a codebook as an `evaluate` metric; the arithmetic is in `codebook_metrics`."""

# evaluate copies this file elsewhere and reads its imports line by line: `import a, b` or a relative one would fail.
from collections.abc import Sequence

import datasets
import evaluate

from transformers_cbvila.metrics.codebook_metrics import codebook_use

_DESCRIPTION = """\
How varied visual words are: the share of codes in use, the perplexity of their distribution (how many equally frequent
codes would be as varied), and the share of the most frequent one.
"""
_INPUTS = """\
predictions: for each image, the codes of its patches (codebook_indices). codebook_size: number of codes.
"""


class CBViLACodebookPerplexity(evaluate.Measurement):
    """Measurement whose `compute` returns `{"usage": float, "perplexity": float, "top_share": float}`."""

    def _info(self) -> evaluate.MeasurementInfo:
        return evaluate.MeasurementInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(predictions=datasets.Sequence(datasets.Value("int64"))),
        )

    def _compute(self, predictions: Sequence[Sequence[int]], codebook_size: int) -> dict[str, float]:
        return codebook_use(predictions, codebook_size)
