"""Classes that a model gives to rows, in batches, and how often they are right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ..metrics.intervals import mean_with_interval
from ..model.item_lists_cbvila import by_position
from ..retrieval.encoding import evaluating
from .evaluation import Evaluation
from .fields import Measured, Metrics
from .rows import TaskRows
from .text_baselines import text_baselines


def measure_classes(
    model: Any, collate: Callable[[list[dict[str, Any]]], dict[str, Any]], rows: TaskRows, evaluation: Evaluation
) -> Measured:
    """Returns the accuracy on rows with `text` and `label`, and the consistency of those with `group`.

    Args:
        model: With logits over the classes of its `config.id2label`.
        collate: The task's collator.
        rows: The rows. Rows of the same image, or group, are resampled together for the intervals.
        evaluation: How to evaluate.
    """
    texts, labels = rows.column("text"), rows.column("label")
    given = classify(model, collate, rows, evaluation.batch_size, evaluation.progress)
    correct = np.asarray([name.lower() == label.lower() for name, label in zip(given, labels, strict=True)])
    grouped_by = next((name for name in ("group", "image_id") if name in rows.records[0].fields), None)
    groups = None if grouped_by is None else np.asarray(rows.column(grouped_by))
    found: Metrics = {"metric": "accuracy", "rows": len(rows)}
    found |= mean_with_interval("accuracy", correct, evaluation.seed, groups)
    if groups is not None and grouped_by == "group":
        found |= _consistency(correct, groups, evaluation.seed)
    known = evaluation.train_rows
    train = None if known is None else list(zip(known.column("text"), known.column("label"), strict=True))
    found |= text_baselines(
        train, texts, labels, lambda guesses: [float(g == w) for g, w in zip(guesses, labels, strict=True)]
    )
    predicted = zip(texts, given, labels, strict=True)
    return Measured(
        found, [{"row": i, "text": t, "prediction": p, "label": label} for i, (t, p, label) in enumerate(predicted)]
    )


def classify(
    model: Any,
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]],
    rows: Sequence[dict[str, Any]],
    batch_size: int = 32,
    progress: bool = True,
) -> list[str]:
    """Returns the likeliest class of each row, by its name in `config.id2label`.

    Args:
        model: With logits over these classes.
        collate: The task's collator.
        rows: The rows; their labels are not looked at.
        batch_size: Rows per batch.
        progress: Whether to show a bar with the remaining time.

    Raises:
        ValueError: If the logits of a row are not finite.
    """
    rows = by_position(rows, "rows")
    names: list[str] = []
    with evaluating(model):
        for start in tqdm(range(0, len(rows), batch_size), desc="Classifying", disable=not progress):
            part = [rows[i] for i in range(start, min(start + batch_size, len(rows)))]
            batch = collate([{name: value for name, value in row.items() if name != "label"} for row in part])
            logits = model(**{name: tensor.to(model.device) for name, tensor in batch.items()}).logits
            finite = logits.isfinite().all(-1)
            if not finite.all():
                row = start + int((~finite).nonzero()[0])
                raise ValueError(f"The logits of row {row} are not finite: the model's weights are broken.")
            names += [model.config.id2label[number] for number in logits.argmax(-1).tolist()]
    return names


def _consistency(correct: np.ndarray, groups: np.ndarray, seed: int) -> Metrics:
    names, members = np.unique(groups, return_inverse=True)
    flawless = np.bincount(members, weights=~correct, minlength=len(names)) == 0
    return {**mean_with_interval("consistency", flawless, seed), "groups": len(names)}
