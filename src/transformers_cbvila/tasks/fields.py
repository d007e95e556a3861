"""Types of what is known of a row, and of what an evaluation finds."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Fields = dict[str, Any]  # of a row, by name
FieldReader = Callable[[Mapping[str, Any]], Fields]
Metrics = dict[str, Any]  # by name


class Measured(NamedTuple):
    """What an evaluation found.

    Attributes:
        metrics: The metrics by name.
        predictions: For each question or row what was asked, predicted and right, of tasks that predict something.
    """

    metrics: Metrics
    predictions: list[dict[str, Any]]
