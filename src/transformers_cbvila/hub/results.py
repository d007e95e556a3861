"""Results in a card: each metric with its interval and its baselines.

Records, reports and `facts.yaml` call baselines `floors`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..model.objective_mim_cbvila import CBViLAMIM
from ..model.objective_pixel_cbvila import CBViLAPixel


@dataclass(frozen=True)
class Metric:
    """How a metric is displayed.

    Attributes:
        name: Its name in tables.
        is_share: Whether it is a share from 0 to 1, displayed in percent.
        baselines: Keys of its baselines in a record, with their names in tables.
    """

    name: str
    is_share: bool = True
    baselines: Mapping[str, str] = field(default_factory=dict)


def _recalls() -> dict[str, Metric]:
    ways = {"text_retrieval": "image → text", "image_retrieval": "text → image"}
    stages = {
        "": "",
        "_reranked": ", re-ranked by matching",
        "_combined": ", re-ranked by both",
        "_fitted": ", re-ranked by both, weighted",
    }
    return {
        f"{key}_r{k}{stage}": Metric(f"{way} R@{k}{words}", baselines={f"{key}_r{k}_floor": "chance"})
        for key, way in ways.items()
        for stage, words in stages.items()
        for k in (1, 5, 10)
    }


# The metrics in cards, in their order.
METRICS: dict[str, Metric] = {
    "accuracy": Metric(
        "accuracy",
        baselines={
            "accuracy_majority_floor": "most frequent answer",
            "accuracy_text_only_floor": "most frequent answer to the same text",
        },
    ),
    "consistency": Metric("consistency"),
    **_recalls(),
    CBViLAMIM.name: Metric("MIM cross-entropy, nats", False, {"ln_perplexity": "the words' frequencies alone"}),
    "mim_shuffled_caption": Metric("the same with another caption", False),
    "mim_accuracy": Metric("MIM accuracy", baselines={"mim_accuracy_position_floor": "best word of each position"}),
    CBViLAPixel.name: Metric("pixel error", False, {"pixel_floor": "mean colour"}),
    "codebook_usage": Metric("codes in use"),
    "codebook_perplexity": Metric("codebook perplexity", False),
    "codebook_top_share": Metric("share of the most frequent code"),
}


@dataclass(frozen=True)
class Result:
    """The value of a metric on one split of one dataset.

    Attributes:
        dataset: The dataset.
        metric: A key of `METRICS`, or any other name.
        value: A share from 0 to 1, or a number.
        split: The split.
        floors: Values of baselines, by their names.
        low: Lower end of a 95 % interval.
        high: Upper end of a 95 % interval.
        trained_on: Whether the rows are among those of the training.
    """

    dataset: str
    metric: str
    value: float
    split: str = "test"
    floors: Mapping[str, float] = field(default_factory=dict)
    low: float | None = None
    high: float | None = None
    trained_on: bool = False

    @property
    def title(self) -> str:
        """The metric's name in tables."""
        return METRICS[self.metric].name if self.metric in METRICS else self.metric

    def shown(self, value: float) -> str:
        """Formats a value of this metric."""
        known = METRICS.get(self.metric)
        is_share = 0 <= self.value <= 1 if known is None else known.is_share
        return f"{100 * value:.2f} %" if is_share else f"{value:.3f}"


def results_of_metrics(metrics: Mapping[str, Any], dataset: str, split: str = "test") -> list[Result]:
    """Returns the results in what `cbvila inspect --output` and evaluations write: flat, with `_low` and `_high`."""
    found = []
    for key, metric in METRICS.items():
        if is_number(metrics.get(key)):
            floors = {
                name: metrics[entry] for entry, name in metric.baselines.items() if is_number(metrics.get(entry))
            }
            ends = (metrics.get(f"{key}_low"), metrics.get(f"{key}_high"))
            found.append(Result(dataset, key, metrics[key], split, floors, *ends))
    return found


def results_of_report(report: Mapping[str, Any], dataset: str = "easy-VQA") -> list[Result]:
    """Returns the results in the demo's `report.json`: accuracy overall, with baselines, and by type of question."""
    ends = report.get("accuracy_interval_95") or ()
    overall = Result(dataset, "accuracy", report["accuracy"], "test", report.get("floors", {}), *ends)
    by_type = report.get("accuracy_by_type", {})
    return [overall, *(Result(dataset, f"accuracy, {kind}", value) for kind, value in by_type.items())]


def results_table(results: list[Result]) -> str:
    """Returns a Markdown table with one line per result."""
    return "\n".join(
        ["| data | metric | value | 95 % interval | baselines |", "|---|---|---|---|---|", *_lines(results)]
    )


def _lines(results: list[Result]) -> Iterator[str]:
    for result in results:
        interval = "–"
        if result.low is not None and result.high is not None:
            interval = f"{result.shown(result.low)} to {result.shown(result.high)}"
        baselines = ", ".join(f"{result.shown(value)} ({name})" for name, value in result.floors.items()) or "–"
        shown = result.shown(result.value)
        seen = ", measured on rows of its training" if result.trained_on else ""
        yield f"| {result.dataset}, {result.split}{seen} | {result.title} | {shown} | {interval} | {baselines} |"


def is_number(value: Any) -> bool:
    """Returns whether a value of JSON or YAML is a number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
