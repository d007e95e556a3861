"""Decides by measurement how a checkpoint's retrievers rank, and records it in the checkpoint.

Matching costs a pass through the fusion encoder for every candidate, and some models rank worse with it. A
[`CBViLARetriever`] therefore follows `rerank_k` and `similarity_weight` of its checkpoint's configuration, which are 0
until they were measured.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from torch import Tensor
from transformers.utils import CONFIG_NAME

from ..bundled import CHECKPOINTS
from ..output_files import write_json
from .recall_names import recall_names
from .score_weighting import JudgedCandidates


class RetrievalOrder(NamedTuple):
    """How candidates are ranked: how many matching re-ranks (0: none), and what similarity counts beside it."""

    rerank_k: int
    similarity_weight: float

    def __str__(self) -> str:
        if not self.rerank_k:
            return "go by similarity alone, which ranks better here"
        beside = f", with similarity at weight {self.similarity_weight:g}" if self.similarity_weight else ""
        return f"have matching order the best {self.rerank_k}{beside}"

    def scores(self, candidates: JudgedCandidates, scale: float) -> Tensor:
        """Returns the scores (Q, k) by which candidates are ranked, as [`CBViLARetriever.search`] returns them."""
        if not self.rerank_k:
            return candidates.similarities / scale
        return candidates.scores + self.similarity_weight * candidates.similarities


def better_order(metrics: Mapping[str, Any], rerank_k: int, prefix: str = "") -> RetrievalOrder | None:
    """Returns the order with the highest mean recall: by similarity, by matching, or by both with a fitted weight.

    Args:
        metrics: What [`measure_retrieval`] returned for `rerank_k`.
        rerank_k: How many candidates were re-ranked.
        prefix: The prefix of the metrics' names.

    Returns:
        The order, of equally good ones the cheapest; `None` if matching was not measured.
    """
    orders = {
        "": RetrievalOrder(0, 0.0),
        "_reranked": RetrievalOrder(rerank_k, 0.0),
        "_fitted": RetrievalOrder(rerank_k, metrics.get(f"{prefix}similarity_weight", 0.0)),
    }
    names = {ending: [f"{prefix}{name}" for name in recall_names(ending)] for ending in orders}
    if not rerank_k or names["_reranked"][0] not in metrics:
        return None
    measured = [ending for ending in orders if names[ending][0] in metrics]
    return orders[max(measured, key=lambda ending: mean(metrics[name] for name in names[ending]))]


def keep_better_order(folder: str | Path, metrics: Mapping[str, Any], rerank_k: int, prefix: str = "") -> str | None:
    """Writes the better order into the `config.json` of a model's folder, where retrievers read it.

    With it goes how its scores become probabilities (`match_calibration`), as far as that was measured.

    Args:
        folder: A model's folder. Nothing is written if it has no model, or if it is a bundled checkpoint.
        metrics: See [`better_order`].
        rerank_k: See [`better_order`].
        prefix: See [`better_order`].

    Returns:
        A message for the user: what was written, or why it could not be; `None` if nothing was to be written.
    """
    file, chosen = Path(folder) / CONFIG_NAME, better_order(metrics, rerank_k, prefix)
    if chosen is None or not file.is_file() or CHECKPOINTS in file.resolve().parents:
        return None
    known = json.loads(file.read_text(encoding="utf-8"))
    names = (f"{prefix}match_slope", f"{prefix}match_offset")
    fitted = [float(metrics[name]) for name in names] if all(name in metrics for name in names) else None
    known |= {**chosen._asdict(), "match_calibration": fitted}  # one of another order would not hold
    values = ", ".join(f"{name}={value:g}" for name, value in chosen._asdict().items())
    try:
        write_json(file, dict(sorted(known.items())))
    except OSError as error:  # a read-only folder, say: no reason to lose what was measured
        return f"Retrievers of {folder} would rank better with {values}, which could not be kept: {error}."
    return f"Retrievers of {folder} now {chosen} ({values} in its {CONFIG_NAME})."
