"""Measured figures as a card shows them: each with its interval and with the floors to read it against."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..model.objective_mim_cbvila import CBViLAMIM
from ..model.objective_pixel_cbvila import CBViLAPixel


@dataclass(frozen=True)
class Metric:
    """How a figure is called and read.

    Attributes:
        name: as a table says it.
        is_share: whether it is a share from 0 to 1, shown in per cent.
        floors: figures beside it that are its floors, with what they are.
    """

    name: str
    is_share: bool = True
    floors: Mapping[str, str] = field(default_factory=dict)


def _recalls() -> dict[str, Metric]:
    ways = {"text_retrieval": "image → text", "image_retrieval": "text → image"}
    stages = {"": "", "_reranked": ", ordered anew by matching", "_combined": ", ordered anew by both"}
    return {
        f"{key}_r{k}{stage}": Metric(f"{way} R@{k}{words}", floors={f"{key}_r{k}_floor": "chance"})
        for key, way in ways.items()
        for stage, words in stages.items()
        for k in (1, 5, 10)
    }


# The figures that cards show, in their order.
METRICS: dict[str, Metric] = {
    "accuracy": Metric(
        "accuracy",
        floors={
            "accuracy_majority_floor": "most frequent answer",
            "accuracy_text_only_floor": "most frequent answer to the same text",
        },
    ),
    "consistency": Metric("consistency"),
    **_recalls(),
    CBViLAMIM.name: Metric("MIM cross-entropy, nats", False, {"ln_perplexity": "the words' frequencies alone"}),
    "mim_shuffled_caption": Metric("the same with another caption", False),
    "mim_accuracy": Metric("MIM accuracy", floors={"mim_accuracy_position_floor": "best word of each position"}),
    CBViLAPixel.name: Metric("pixel error", False, {"pixel_floor": "mean colour"}),
    "codebook_usage": Metric("codes in use"),
    "codebook_perplexity": Metric("codebook perplexity", False),
    "codebook_top_share": Metric("share of the most frequent code"),
}


@dataclass(frozen=True)
class Result:
    """One figure, measured on one split of one data set.

    Attributes:
        dataset, split: what it was measured on.
        metric: a key of `METRICS`, or a name of one's own.
        value: a share from 0 to 1, or a number.
        floors: what knowing less reaches, by the name of what that is.
        low, high: a 95 % interval.
    """

    dataset: str
    metric: str
    value: float
    split: str = "test"
    floors: Mapping[str, float] = field(default_factory=dict)
    low: float | None = None
    high: float | None = None

    @property
    def title(self) -> str:
        """The metric's name."""
        return METRICS[self.metric].name if self.metric in METRICS else self.metric

    def shown(self, value: float) -> str:
        """A value of this metric as text."""
        known = METRICS.get(self.metric)
        is_share = 0 <= self.value <= 1 if known is None else known.is_share
        return f"{100 * value:.2f} %" if is_share else f"{value:.3f}"


def results_of_figures(figures: Mapping[str, Any], dataset: str, split: str = "test") -> list[Result]:
    """What `cbvila inspect --output` and evaluations write: flat figures, their `_low` and `_high` beside them."""
    found = []
    for key, metric in METRICS.items():
        if is_number(figures.get(key)):
            floors = {words: figures[name] for name, words in metric.floors.items() if is_number(figures.get(name))}
            ends = (figures.get(f"{key}_low"), figures.get(f"{key}_high"))
            found.append(Result(dataset, key, figures[key], split, floors, *ends))
    return found


def results_of_report(report: Mapping[str, Any], dataset: str = "easy-VQA") -> list[Result]:
    """What the demo writes (`report.json`): accuracy overall and by type of question, with the floors it measured."""
    ends = report.get("accuracy_interval_95") or ()
    overall = Result(dataset, "accuracy", report["accuracy"], "test", report.get("floors", {}), *ends)
    by_type = report.get("accuracy_by_type", {})
    return [overall, *(Result(dataset, f"accuracy, {kind}", value) for kind, value in by_type.items())]


def results_table(results: list[Result]) -> str:
    """Markdown, one line per figure."""
    return "\n".join(["| data | figure | value | 95 % interval | floors |", "|---|---|---|---|---|", *_lines(results)])


def _lines(results: list[Result]) -> Iterator[str]:
    for result in results:
        interval = "–"
        if result.low is not None and result.high is not None:
            interval = f"{result.shown(result.low)} to {result.shown(result.high)}"
        floors = ", ".join(f"{result.shown(value)} ({name})" for name, value in result.floors.items()) or "–"
        shown = result.shown(result.value)
        yield f"| {result.dataset}, {result.split} | {result.title} | {shown} | {interval} | {floors} |"


def is_number(value: Any) -> bool:
    """Whether JSON or YAML gave a number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
