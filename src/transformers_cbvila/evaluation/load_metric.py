"""Loads this package's `evaluate` metric from its folder, with no network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from transformers_cbvila.extras import require

if TYPE_CHECKING:
    from evaluate import EvaluationModule

VQA_ACCURACY_FOLDER = Path(__file__).parent / "cbvila_vqa_accuracy"


def load_vqa_accuracy(config_name: str = "exact_match", *, cache_dir: str | Path | None = None) -> EvaluationModule:
    """Loads the accuracy metric.

    Args:
        config_name: `"exact_match"` (one reference per question; `compute` also takes `groups`) or `"vqa_v2"` (ten
            annotators' answers per question).
        cache_dir: where evaluate keeps the predictions until `compute`; its own cache folder when None.

    Returns:
        A metric whose `compute(predictions=…, references=…)` returns `{"accuracy": float between 0 and 1}`.

    Raises:
        ImportError: `evaluate` is not installed.
        ValueError: no such configuration.
    """
    evaluate = require("evaluate")
    cache = None if cache_dir is None else str(cache_dir)
    return evaluate.load(str(VQA_ACCURACY_FOLDER), config_name, cache_dir=cache)
