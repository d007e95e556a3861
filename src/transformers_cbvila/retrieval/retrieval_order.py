"""Decides by measurement whether a checkpoint's retrievers re-rank by matching, and records it in the checkpoint.

Matching costs a pass through the fusion encoder for every candidate, and some models rank worse with it. A
[`CBViLARetriever`] therefore follows `rerank_k` of its checkpoint's configuration, which is 0 until it was measured.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from transformers.utils import CONFIG_NAME

from ..bundled import CHECKPOINTS
from ..output_files import write_json
from .measure import recall_names


def better_rerank_k(metrics: Mapping[str, Any], rerank_k: int, prefix: str = "") -> int | None:
    """Returns how many candidates matching should re-rank.

    Args:
        metrics: What [`measure_retrieval`] returned for `rerank_k`.
        rerank_k: How many candidates were re-ranked.
        prefix: The prefix of the metrics' names.

    Returns:
        `rerank_k` if the mean of the recalls is higher with matching, else 0; `None` if it was not measured.
    """
    names = [f"{prefix}{name}" for name in recall_names()]
    if not rerank_k or f"{names[0]}_reranked" not in metrics:
        return None
    return rerank_k if mean(metrics[f"{n}_reranked"] for n in names) > mean(metrics[n] for n in names) else 0


def keep_better_order(folder: str | Path, metrics: Mapping[str, Any], rerank_k: int, prefix: str = "") -> str | None:
    """Writes the better `rerank_k` into the `config.json` of a model's folder, where retrievers read it.

    Args:
        folder: A model's folder. Nothing is written if it has no model, or if it is a bundled checkpoint.
        metrics: See [`better_rerank_k`].
        rerank_k: See [`better_rerank_k`].
        prefix: See [`better_rerank_k`].

    Returns:
        A message for the user: what was written, or why it could not be; `None` if nothing was to be written.
    """
    file, chosen = Path(folder) / CONFIG_NAME, better_rerank_k(metrics, rerank_k, prefix)
    if chosen is None or not file.is_file() or CHECKPOINTS in file.resolve().parents:
        return None
    known = json.loads(file.read_text(encoding="utf-8"))
    try:
        write_json(file, dict(sorted({**known, "rerank_k": chosen}.items())))
    except OSError as error:  # a read-only folder, say: no reason to lose what was measured
        return f"Retrievers of {folder} would rank better with rerank_k={chosen}, which could not be kept: {error}."
    how = f"have matching order the best {chosen}" if chosen else "go by similarity alone, which ranks better here"
    return f"Retrievers of {folder} now {how} (rerank_k={chosen} in its {CONFIG_NAME})."
