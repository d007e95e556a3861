"""The record of one demo run: everything that its report shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from PIL import Image

from transformers_cbvila.metrics.intervals import wilson_interval

YES_NO = "yes/no"


class Example(TypedDict):
    """One question that the fine-tuned model answered; `score` is its probability, 0 to 1, or None."""

    image: Image.Image
    question: str
    answer: str
    prediction: str
    score: float | None


class OtherRun(TypedDict, total=False):
    """Figures of a run to compare with; leave out what is not known. Accuracies from 0 to 1."""

    accuracy: float
    shape_color_accuracy: float
    train_seconds: float
    source: str


@dataclass(frozen=True)
class DemoRun:
    """One demo run. Accuracies are shares from 0 to 1, times are seconds.

    Attributes:
        title: the report's heading.
        model_source: what the fine-tuning started from, in words, e.g. `"bundled checkpoint cbvila-tiny"`.
        command: the command line that was run.
        n_parameters: number of model parameters.
        train_steps: optimiser steps.
        train_seconds: wall time of `Trainer.train()`.
        log_history: `Trainer.state.log_history`; in entries with `step`, every key that begins with `loss` and
            `learning_rate` is drawn.
        accuracy: over all test questions.
        accuracy_by_type: per question type.
        n_by_type: number of test questions per type; the same keys as `accuracy_by_type`.
        shape_color_accuracy: over the questions whose answer is not yes or no.
        floors: accuracies of methods to compare with, by their names.
        other_runs: runs to compare with, by their names.
        examples: questions with the model's answers, to be shown with their images.
        environment: versions, device, threads and the like, by their names.
    """

    title: str
    model_source: str
    command: str
    n_parameters: int
    train_steps: int
    train_seconds: float
    log_history: Sequence[Mapping[str, Any]]
    accuracy: float
    accuracy_by_type: Mapping[str, float]
    n_by_type: Mapping[str, int]
    shape_color_accuracy: float
    floors: Mapping[str, float]
    other_runs: Mapping[str, OtherRun]
    examples: Sequence[Example]
    environment: Mapping[str, object]

    def __post_init__(self) -> None:
        """Refuses percentages given as 0 to 100 and types without a count, which would end up in a wrong report."""
        if set(self.accuracy_by_type) != set(self.n_by_type):
            raise ValueError(f"question types differ: {sorted(self.accuracy_by_type)} and {sorted(self.n_by_type)}")
        shares = {"accuracy": self.accuracy, "shape_color_accuracy": self.shape_color_accuracy}
        shares |= {**self.accuracy_by_type, **self.floors}
        for name, run in self.other_runs.items():
            shares |= {f"{name}: {key}": run[key] for key in ("accuracy", "shape_color_accuracy") if key in run}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must be a share from 0 to 1, got {share}")

    @property
    def n_questions(self) -> int:
        """Number of test questions."""
        return sum(self.n_by_type.values())

    @property
    def n_shape_color(self) -> int:
        """Number of test questions whose answer is not yes or no."""
        return self.n_questions - self.n_by_type.get(YES_NO, 0)

    @property
    def n_wrong(self) -> int:
        """Number of test questions answered wrong."""
        return round((1 - self.accuracy) * self.n_questions)

    def to_json(self) -> dict[str, Any]:
        """The run as JSON-ready values, with 95 % intervals, without the examples' images."""
        return {
            "title": self.title,
            "model_source": self.model_source,
            "command": self.command,
            "n_parameters": self.n_parameters,
            "train_steps": self.train_steps,
            "train_seconds": self.train_seconds,
            "n_questions": self.n_questions,
            "accuracy": self.accuracy,
            "accuracy_interval_95": wilson_interval(self.accuracy, self.n_questions),
            "n_shape_color": self.n_shape_color,
            "shape_color_accuracy": self.shape_color_accuracy,
            "shape_color_interval_95": wilson_interval(self.shape_color_accuracy, self.n_shape_color),
            "accuracy_by_type": dict(self.accuracy_by_type),
            "n_by_type": dict(self.n_by_type),
            "floors": dict(self.floors),
            "other_runs": {name: dict(run) for name, run in self.other_runs.items()},
            "environment": {name: str(value) for name, value in self.environment.items()},
            "examples": [{key: value for key, value in row.items() if key != "image"} for row in self.examples],
            "log_history": [dict(entry) for entry in self.log_history],
        }
