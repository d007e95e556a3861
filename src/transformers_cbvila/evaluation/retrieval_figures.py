"""Recall of images by captions and of captions by images, by similarity and with matching on top.

Shapes: M rows or images, T texts, Q queries.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..model.item_lists_cbvila import by_position
from ..model.processing_cbvila import CBViLAProcessor
from .gallery import RetrievalModel, cosine_similarity
from .intervals import bootstrap_interval
from .reranking import Candidates, TwoStageRetrieval, encode_both, rerank, reranked_scores
from .retrieval_metrics import first_relevant_ranks

DEPTHS = (1, 5, 10)
_QUERIES = 512  # ranked at a time: their scores, in fp64, are all that grows with them


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
        with `rerank_k` also `text_retrieval_r1_reranked` …, by matching alone, as in ALBEF, and `…_combined`, by both
        ([`Candidates.with_similarity`]). Each with `_low` and `_high`, its 95 % bootstrap interval over queries.
        Empty, with a warning, where the model cannot compare images with texts.
    """
    widths = model.config.vision_config.hidden_size, model.config.text_config.hidden_size
    if not model.cbvila.has_contrastive_head and widths[0] != widths[1]:
        warnings.warn(
            f"No retrieval figures: this model has no contrastive head (itc_weight=0), and its encoders' widths "
            f"{widths[0]} and {widths[1]} differ, so that similarities are not defined.",
            stacklevel=2,
        )
        return {}
    rows = by_position(rows, "rows")
    captions = [rows[i]["captions"][:1] for i in range(len(rows))]
    return gallery_figures(model, processor, ImagesOfRows(rows), captions, rerank_k, batch_size, seed, progress)


@torch.no_grad()
def gallery_figures(
    model: RetrievalModel,
    processor: CBViLAProcessor,
    images: Sequence[Any],
    captions: Sequence[Sequence[str]],
    rerank_k: int | None = 64,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = True,
    max_length: int = 30,
    own_captions_only: bool = False,
    folder: str | Path | None = None,
) -> dict[str, float]:
    """Retrieval among M images and all T of their captions: an image is found by each, and finds any of them.

    Args:
        images: The images.
        captions: The captions of each, at least one.
        own_captions_only: Whether only an image's own captions are true of it, as in the published protocols, and not
            equal captions of other images, too.
        folder: Where to keep what is encoded and matched, for more than memory holds; killed, the same call goes on.
            Then what is in memory is a similarity, and whether it is true, for every image and text.

    Returns:
        As [`retrieval_figures`]. The intervals of captions as queries are over images, whose captions are resampled
        together.
    """
    texts, owners = [text for row in captions for text in row], owners_of(captions)
    matches = bool(rerank_k) and model.config.itm_weight > 0
    # a folder may be asked again, for matching
    kept = matches or folder is not None
    galleries = encode_both(model, processor, images, texts, batch_size, progress, folder, max_length, kept)
    relevant = true_matches(texts, owners, own_captions_only)
    similarity = cosine_similarity(*galleries)
    figures = _recalls(similarity, None, relevant, owners, "", seed)
    if rerank_k and matches:
        found = rerank(model, *galleries, rerank_k, progress, folder and Path(folder) / "matches")
        figures |= _recalls(similarity, found, relevant, owners, "_reranked", seed)
        scale = float(model.cbvila.similarity_scale())
        both = TwoStageRetrieval(*(candidates.with_similarity(scale) for candidates in found))
        figures |= _recalls(similarity, both, relevant, owners, "_combined", seed)
    return figures


def owners_of(captions: Sequence[Sequence[str]]) -> np.ndarray:
    """The image (T,) of each caption, when the captions of all images are put in a row."""
    return np.repeat(np.arange(len(captions)), [len(row) for row in captions])


def true_matches(texts: Sequence[str], owners: np.ndarray, own_only: bool) -> np.ndarray:
    """(M, T) bool: which texts are true of which images; of equal texts all are, unless only an image's own count."""
    images = np.arange(owners[-1] + 1)
    if own_only:
        return images[:, None] == owners[None, :]
    number = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    distinct = np.asarray([number[text] for text in texts])
    true = np.zeros((len(images), len(number)), dtype=bool)
    true[owners, distinct] = True
    return true[:, distinct]


def _recalls(
    similarity: Tensor, found: TwoStageRetrieval | None, relevant: np.ndarray, owners: np.ndarray, ending: str, seed
) -> dict[str, float]:
    """Figures both ways, from similarities and `relevant` (M, T); with candidates, these come first."""
    figures: dict[str, float] = {}
    ways = (
        ("text", similarity, relevant, found and found.texts_of_images, None),
        ("image", similarity.T, relevant.T, found and found.images_of_texts, owners),
    )
    for way, scores, true, candidates, groups in ways:
        ranks = _ranks(scores, true, candidates)
        for depth in DEPTHS:
            hits, name = (ranks < depth).astype(float), f"{way}_retrieval_r{depth}{ending}"
            low, high = bootstrap_interval(hits, seed, groups=groups)
            figures |= {name: float(hits.mean()), f"{name}_low": low, f"{name}_high": high}
    return figures


def _ranks(similarity: Tensor, relevant: np.ndarray, candidates: Candidates | None) -> np.ndarray:
    """Ranks (Q,) of the best relevant item, for a part of the queries at a time."""
    ranks = []
    for start in range(0, len(relevant), _QUERIES):
        part = slice(start, start + _QUERIES)
        scores = similarity[part].numpy()
        if candidates is not None:
            chosen = Candidates(*(tensor[part] for tensor in candidates))
            scores = reranked_scores(similarity[part], chosen)
        ranks.append(first_relevant_ranks(scores, relevant[part]))
    return np.concatenate(ranks)


class ImagesOfRows(Sequence):
    """The images of rows, read one by one."""

    def __init__(self, rows: Sequence[dict[str, Any]]):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]["image"]

    def content_id(self) -> int | None:
        """What tells the images from others, where the rows know."""
        return self.rows.content_id() if hasattr(self.rows, "content_id") else None
