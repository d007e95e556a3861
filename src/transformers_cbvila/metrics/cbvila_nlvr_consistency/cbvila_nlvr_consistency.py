"""Accuracy and consistency of visual reasoning as an `evaluate` metric; the arithmetic is in `reasoning_metrics`."""

# evaluate copies this file elsewhere and reads its imports line by line: `import a, b` or a relative one would fail.
from collections.abc import Hashable, Sequence

import datasets
import evaluate

from transformers_cbvila.metrics.reasoning_metrics import consistency

_DESCRIPTION = """\
Accuracy of statements judged true or false, and consistency: the share of groups, such as all pairs of images that one
sentence was written about, in which every judgement is right.
"""
_INPUTS = """\
predictions and references: lists of str, compared without case ("True" and "true" are equal), of bool or of int.
groups: one name per statement, equal for statements of one group.
"""


class CBViLANlvrConsistency(evaluate.Metric):
    """Metric whose `compute` returns `{"accuracy": float, "consistency": float}`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=[
                datasets.Features(predictions=datasets.Value(kind), references=datasets.Value(kind))
                for kind in ("string", "bool", "int64")
            ],
        )

    def _compute(
        self,
        predictions: Sequence[str | bool | int],
        references: Sequence[str | bool | int],
        groups: Sequence[Hashable],
    ) -> dict[str, float]:
        pairs = zip(predictions, references, strict=True)
        correct = [str(given).strip().lower() == str(wanted).strip().lower() for given, wanted in pairs]
        return {"consistency": consistency(correct, groups), "accuracy": sum(correct) / len(correct)}
