"""Metrics of the first stage of a Q-Former: its losses, and retrieval by its queries.

Shapes: M rows, Q queries, E embedding size.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ..data.qformer_collator import CBViLADataCollatorForQFormerPreTraining
from ..metrics.intervals import mean_with_interval
from ..metrics.retrieval_metrics import first_relevant_ranks
from ..model.modeling_cbvila_qformer_pretraining import CBViLAForQFormerPreTraining
from ..model.processing_cbvila import CBViLAProcessor
from ..model.qformer_losses_cbvila import query_similarities
from ..retrieval.encoding import evaluating
from ..retrieval.recall_names import DEPTHS


def inspect_qformer(
    model: CBViLAForQFormerPreTraining,
    processor: CBViLAProcessor,
    rows: Sequence[dict[str, Any]],
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, float]:
    """Measures a Q-Former on M rows with `image` and `captions`, of which the first is used.

    Args:
        model: The model, whose mode stays as it is.
        processor: Its processor.
        rows: The rows.
        batch_size: Rows at a time, within which contrast and matching compare.
        seed: Seed of the intervals.
        progress: Whether to show a bar.

    Returns:
        `loss` and its terms, `loss_itc` …: means over batches, weighted by their rows; and `text_retrieval_r1`, `_r5`,
        `_r10` (texts found by images) and `image_retrieval_r1` … by similarity, each with `_low` and `_high`, its 95 %
        bootstrap interval over queries. Rows with the same caption are true matches of each other.
    """
    collate = CBViLADataCollatorForQFormerPreTraining(processor)
    sums: dict[str, float] = defaultdict(float)
    images, texts, captions = [], [], []
    with evaluating(model):
        for start in tqdm(range(0, len(rows), batch_size), desc="Measuring", disable=not progress):
            chunk = [rows[i] for i in range(start, min(start + batch_size, len(rows)))]
            captions += [row["captions"][0] for row in chunk]
            examples = [{"image": row["image"], "text": row["captions"][0]} for row in chunk]
            output = model(**{name: tensor.to(model.device) for name, tensor in collate(examples).items()})
            terms = {"loss": output.loss, **{f"loss_{name}": value for name, value in output.losses.items()}}
            for name, value in terms.items():
                sums[name] += float(value) * len(chunk)
            images.append(output.image_embeds)
            texts.append(output.text_embeds)
        similarity = _similarity(images, torch.cat(texts))
    losses = {name: value / len(captions) for name, value in sums.items()}
    return {**losses, **_recalls(similarity, np.array(captions), seed)}


def _similarity(images: Sequence[torch.Tensor], texts: torch.Tensor) -> np.ndarray:
    """Returns similarities (M, M) of images, of which the queries (b, Q, E) come in batches, to texts (M, E)."""
    return torch.cat([query_similarities(queries, texts) for queries in images]).cpu().numpy()


def _recalls(similarity: np.ndarray, captions: np.ndarray, seed: int) -> dict[str, float]:
    relevant = captions[:, None] == captions
    metrics: dict[str, float] = {}
    for way, scores in (("text", similarity), ("image", similarity.T)):
        ranks = first_relevant_ranks(scores, relevant)
        for depth in DEPTHS:
            metrics |= mean_with_interval(f"{way}_retrieval_r{depth}", ranks < depth, seed)
    return metrics
