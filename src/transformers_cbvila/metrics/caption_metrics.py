"""Metrics of `evaluate` that compare captions with references, such as rouge, meteor and sacrebleu."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from transformers_cbvila.extras import require
from transformers_cbvila.model.messages_cbvila import shown, shown_error

if TYPE_CHECKING:
    from evaluate import EvaluationModule


def load_caption_metrics(names: Sequence[str]) -> dict[str, EvaluationModule]:
    """Loads metrics by name.

    Args:
        names: Names that `evaluate.load` knows, or folders of metrics.

    Raises:
        ImportError: If `evaluate`, or a package that a metric needs, is not installed.
        ValueError: If a metric is not there.
    """
    found = {}
    for name in names:
        try:
            metric = require("evaluate").load(name)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"caption_metric={shown(name)} cannot be loaded ({shown_error(error)}): give a name that evaluate "
                "finds on the Hub or in its cache, or the folder of a metric."
            ) from error
        found[metric.name] = metric
    return found


def caption_metrics(
    metrics: dict[str, EvaluationModule], predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Returns the numbers that metrics compute, as `METRIC` or, of several, `METRIC_NAME`.

    Args:
        metrics: Metrics by name.
        predictions: A caption of each image.
        references: The captions of each image that are right.
    """
    found: dict[str, float] = {}
    for name, metric in metrics.items():
        values = metric.compute(predictions=list(predictions), references=[list(row) for row in references]) or {}
        numbers = {key: float(value) for key, value in values.items() if isinstance(value, int | float)}
        found |= {name if key == name else f"{name}_{key}": value for key, value in numbers.items()}
    return found
