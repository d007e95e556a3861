"""How a task is evaluated, whether by `cbvila evaluate` or during training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..model.processing_cbvila import CBViLAProcessor
from ..model.unknown_tokens_cbvila import unknown_token_share
from .texts import texts_of_rows

if TYPE_CHECKING:
    from .rows import TaskRows
    from .task import Measured, Task


@dataclass
class Evaluation:
    """What an evaluation is told beside model, rows and the task's options.

    Args:
        train_rows: Training rows, which baselines are taken from: the majority answer, and the majority answer to each
            text. Without, the majority is that of the evaluated rows, and there is no other baseline.
        batch_size: Rows per batch.
        seed: Seed of the intervals.
        progress: Whether to show bars.
        folder: Where to keep finished work, of a task that can (`resumes_evaluation`).
        protocol: The protocol by which metrics are to be comparable, if any.
    """

    train_rows: TaskRows | None = None
    batch_size: int = 32
    seed: int = 0
    progress: bool = True
    folder: str | None = None
    protocol: str | None = None


def evaluate_rows(task: Task, model: Any, processor: CBViLAProcessor, rows: TaskRows, how: Evaluation) -> Measured:
    """Returns the metrics and predictions of a model on the rows of a task.

    Among the metrics are the task's own, such as `accuracy` or `text_retrieval_r1`, each with `_low` and `_high`; its
    baselines, whose names end in `_floor`; what the protocol leaves open; and `unknown_token_share`, the share of
    tokens that the vocabulary lacks: of a language that the model never saw, nearly all.
    """
    measured = task.measure(model, processor, rows, how)
    texts = list(texts_of_rows(task, rows))
    if texts:
        measured.metrics["unknown_token_share"] = unknown_token_share(processor.tokenizer, texts)
    return measured
