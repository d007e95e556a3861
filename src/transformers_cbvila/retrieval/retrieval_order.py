"""Whether matching orders the most similar items better than similarity itself: measured, and kept in the checkpoint.

Matching costs a pass through the fusion encoder for every candidate, and of many a model ranks worse. So what a
[`CBViLARetriever`] does by default is `rerank_k` of its checkpoint's configuration: 0 until somebody has measured.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from transformers.utils import CONFIG_NAME

from ..bundled import CHECKPOINTS
from ..output_files import write_json
from .retrieval_figures import DEPTHS


def better_rerank_k(figures: Mapping[str, Any], rerank_k: int, prefix: str = "") -> int | None:
    """The number of candidates that matching should order: those that were measured, or none.

    Args:
        figures: What [`retrieval_figures`] returned for `rerank_k`.
        prefix: What their names begin with.

    Returns:
        `rerank_k` if the mean of the recalls is higher with matching, else 0; `None` if it was not measured.
    """
    names = [f"{prefix}{way}_retrieval_r{depth}" for way in ("text", "image") for depth in DEPTHS]
    if not rerank_k or f"{names[0]}_reranked" not in figures:
        return None
    return rerank_k if mean(figures[f"{n}_reranked"] for n in names) > mean(figures[n] for n in names) else 0


def keep_better_order(folder: str | Path, figures: Mapping[str, Any], rerank_k: int, prefix: str = "") -> str | None:
    """Writes what was measured into the `config.json` of a model's folder, where retrievers look for it.

    Args:
        folder: A folder with a model; of anything else, and of a bundled checkpoint, nothing is written.
        figures, rerank_k, prefix: As of [`better_rerank_k`].

    Returns:
        A sentence that says so, or why it could not be written; None if there is nothing to say.
    """
    file, chosen = Path(folder) / CONFIG_NAME, better_rerank_k(figures, rerank_k, prefix)
    if chosen is None or not file.is_file() or CHECKPOINTS in file.resolve().parents:
        return None
    known = json.loads(file.read_text(encoding="utf-8"))
    try:
        write_json(file, dict(sorted({**known, "rerank_k": chosen}.items())))
    except OSError as error:  # such as of a folder that others own: no reason to lose what was measured
        return f"Retrievers of {folder} would rank better with rerank_k={chosen}, which could not be kept: {error}."
    how = f"have matching order the best {chosen}" if chosen else "go by similarity alone, which ranks better here"
    return f"Retrievers of {folder} now {how} (rerank_k={chosen} in its {CONFIG_NAME})."
