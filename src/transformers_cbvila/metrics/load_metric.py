"""Loads this package's `evaluate` metrics from their folders, with no network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from transformers_cbvila.extras import require
from transformers_cbvila.model.messages_cbvila import shown

if TYPE_CHECKING:
    from evaluate import EvaluationModule

METRICS = ("vqa_accuracy", "retrieval_recall", "nlvr_consistency", "codebook_perplexity")
VQA_ACCURACY_FOLDER = Path(__file__).parent / "cbvila_vqa_accuracy"


def metric_folder(name: str) -> Path:
    """Returns the folder of a metric, which `evaluate.load` takes and which can be published as it is.

    Raises:
        ValueError: If no metric has this name.
    """
    if name not in METRICS:
        raise ValueError(f"no metric is called {shown(name)}; there are {', '.join(METRICS)}")
    return Path(__file__).parent / f"cbvila_{name}"


def load_metric(name: str, config_name: str | None = None, *, cache_dir: str | Path | None = None) -> EvaluationModule:
    """Loads a metric.

    Args:
        name: One of `METRICS`.
        config_name: For `vqa_accuracy`, `"exact_match"` (one reference per question; `compute` also takes `groups`;
            the default) or `"vqa_v2"` (ten annotators' answers per question).
        cache_dir: Where evaluate stores predictions until `compute`; by default its own cache folder.

    Returns:
        A metric whose `compute(predictions=…, …)` returns values by name.

    Raises:
        ImportError: If `evaluate` is not installed.
        ValueError: If there is no such metric or configuration.
    """
    evaluate = require("evaluate")
    cache = None if cache_dir is None else str(cache_dir)
    return evaluate.load(str(metric_folder(name)), config_name, cache_dir=cache)


def load_vqa_accuracy(config_name: str = "exact_match", *, cache_dir: str | Path | None = None) -> EvaluationModule:
    """Loads `vqa_accuracy` (see [`load_metric`]); its `compute` returns `{"accuracy": float between 0 and 1}`."""
    return load_metric("vqa_accuracy", config_name, cache_dir=cache_dir)
