"""Recall at k of retrieval as an `evaluate` metric; the arithmetic is in `retrieval_metrics`."""

# evaluate copies this file elsewhere and reads its imports line by line: `import a, b` or a relative one would fail.
from collections.abc import Sequence

import datasets
import evaluate
import numpy as np

from transformers_cbvila.metrics.retrieval_metrics import recall_at_k

_DESCRIPTION = """\
Share of queries with at least one relevant item among the k with the highest scores. Among equal scores, relevant
items count as the last ones.
"""
_INPUTS = """\
predictions: for each query, one score for every item of the gallery. references: for each query, the positions of its
relevant items, at least one. ks (optional): the depths, [1, 5, 10] by default.
"""


class CBViLARetrievalRecall(evaluate.Metric):
    """Metric whose `compute` returns `{"recall_at_1": float, "recall_at_5": float, "recall_at_10": float}`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                predictions=datasets.Sequence(datasets.Value("float64")),
                references=datasets.Sequence(datasets.Value("int64")),
            ),
        )

    def _compute(
        self,
        predictions: Sequence[Sequence[float]],
        references: Sequence[Sequence[int]],
        ks: Sequence[int] = (1, 5, 10),
    ) -> dict[str, float]:
        scores = np.asarray(predictions, dtype=float)
        if scores.ndim != 2:
            raise ValueError("every query needs a score for every item of the gallery, as many as the other queries")
        relevant = np.zeros(scores.shape, dtype=bool)
        for query, places in enumerate(references):
            if not all(0 <= place < scores.shape[1] for place in places):
                raise ValueError(f"query {query} names {list(places)} in a gallery of {scores.shape[1]} item(s)")
            relevant[query, places] = True
        return {f"recall_at_{k}": recall for k, recall in recall_at_k(scores, relevant, ks).items()}
