"""Recall of images by captions and of captions by images, by similarity and with matching on top.

Shapes: M rows.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..model.processing_cbvila import CBViLAProcessor
from .gallery import RetrievalModel, cosine_similarity, encode_images, encode_texts
from .intervals import bootstrap_interval
from .reranking import rerank, reranked_scores
from .retrieval_metrics import first_relevant_ranks

_DEPTHS = (1, 5, 10)


def retrieval_figures(
    model: RetrievalModel,
    processor: CBViLAProcessor,
    rows: Sequence[dict[str, Any]],
    rerank_k: int | None = 64,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, float]:
    """Zero-shot retrieval among M rows with `image` and `captions`, of which the first is used.

    Rows with the same caption are true matches of each other.

    Args:
        rerank_k: How many candidates per query matching orders anew; `None` or 0: none. Nor is there anything to
            order by in a model that was trained without matching (`itm_weight=0`).

    Returns:
        `text_retrieval_r1`, `_r5`, `_r10` (texts found by images) and `image_retrieval_r1` … by cosine similarity;
        with `rerank_k` also `text_retrieval_r1_reranked` … Each with `_low` and `_high`, its 95 % bootstrap interval
        over queries. Empty, with a warning, where the model cannot compare images with texts.
    """
    widths = model.config.vision_config.hidden_size, model.config.text_config.hidden_size
    if not model.cbvila.has_contrastive_head and widths[0] != widths[1]:
        warnings.warn(
            f"No retrieval figures: this model has no contrastive head (itc_weight=0), and its encoders' widths "
            f"{widths[0]} and {widths[1]} differ, so that similarities are not defined.",
            stacklevel=2,
        )
        return {}
    captions = np.asarray([rows[i]["captions"][0] for i in range(len(rows))])
    images = encode_images(model, processor, _Images(rows), batch_size, progress)
    texts = encode_texts(model, processor, captions.tolist(), batch_size=batch_size, progress=progress)
    similarity = cosine_similarity(images, texts)
    relevant = captions[:, None] == captions[None, :]
    figures = _recalls(similarity.numpy(), similarity.T.numpy(), relevant, "", seed)
    if rerank_k and model.config.itm_weight > 0:
        found = rerank(model, images, texts, rerank_k, progress)
        by_image = reranked_scores(similarity, found.texts_of_images)
        by_text = reranked_scores(similarity.T, found.images_of_texts)
        figures |= _recalls(by_image, by_text, relevant, "_reranked", seed)
    return figures


def _recalls(
    by_image: np.ndarray, by_text: np.ndarray, relevant: np.ndarray, ending: str, seed: int
) -> dict[str, float]:
    """Figures from scores (M, M) with queries in rows; `relevant` (M, M) is symmetric."""
    figures: dict[str, float] = {}
    for way, scores in (("text", by_image), ("image", by_text)):
        ranks = first_relevant_ranks(scores, relevant)
        for depth in _DEPTHS:
            hits, name = (ranks < depth).astype(float), f"{way}_retrieval_r{depth}{ending}"
            low, high = bootstrap_interval(hits, seed)
            figures |= {name: float(hits.mean()), f"{name}_low": low, f"{name}_high": high}
    return figures


class _Images(Sequence):
    """The images of rows, read one by one."""

    def __init__(self, rows: Sequence[dict[str, Any]]):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]["image"]
