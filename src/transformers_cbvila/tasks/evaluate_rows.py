"""Evaluates rows of any task: by `cbvila evaluate`, and during training."""

from typing import Any

from ..model.processing_cbvila import CBViLAProcessor
from ..model.unknown_tokens_cbvila import unknown_token_share
from .evaluation import Evaluation
from .fields import Measured
from .rows import TaskRows
from .task import Task
from .texts import texts_of_rows


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
