"""Visual question answering accuracy as an `evaluate` metric; the arithmetic is in `vqa_metrics`."""

# evaluate copies this file elsewhere and reads its imports line by line: `import a, b` or a relative one would fail.
from collections.abc import Hashable, Sequence
from typing import Any

import datasets
import evaluate

from transformers_cbvila.metrics.vqa_metrics import accuracy_by_group, exact_match_accuracy, vqa_soft_accuracy

_DESCRIPTION = """\
Accuracy of answers to questions about images. Configuration "exact_match" (default) compares each prediction with one
reference; "vqa_v2" compares it with the answers of ten annotators as the VQAv2 challenge does.
"""
_INPUTS = """\
predictions: list of str. references: list of str, or for "vqa_v2" list of lists of ten str.
groups (optional, "exact_match" only): one label per question; adds "accuracy_by_group".
"""


class CBViLAVqaAccuracy(evaluate.Metric):
    """Metric with the configurations `exact_match` and `vqa_v2`; `compute` returns `{"accuracy": float}`."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        references = {"exact_match": text, "default": text, "vqa_v2": datasets.Sequence(text)}
        if self.config_name not in references:
            raise ValueError(f"no configuration {self.config_name!r}; there are exact_match (default) and vqa_v2")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(predictions=text, references=references[self.config_name]),
        )

    def _compute(
        self, predictions: Sequence[str], references: Sequence[Any], groups: Sequence[Hashable] | None = None
    ) -> dict[str, Any]:
        if self.config_name == "vqa_v2":
            if groups is not None:
                raise ValueError("groups are for the configuration exact_match only")
            return {"accuracy": vqa_soft_accuracy(predictions, references)}
        result: dict[str, Any] = {"accuracy": exact_match_accuracy(predictions, references)}
        if groups is not None:
            result["accuracy_by_group"] = accuracy_by_group(predictions, references, groups)
        return result
