"""Two-stage retrieval, as in ALBEF: similarity selects candidates from the gallery, matching (Eq. 5) re-ranks them.

Similarity costs one product per pair, matching a pass through the fusion encoder (see `matching.py`).

Shapes: M images, T texts, P pairs, Q queries, G items of a gallery, k candidates per query, S visual tokens.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..model.processing_cbvila import CBViLAProcessor
from .encoding import GalleryEncoder
from .gallery import Gallery, RetrievalModel, check_comparable
from .gallery_writing import store_gallery
from .pair_matching import match_pairs
from .shared_work import encode_together, match_together
from .similarity import most_similar


class Candidates(NamedTuple):
    """Candidates of each query, best first: `rows` (Q, k) of the gallery, `scores` (Q, k) and `cosines` (Q, k)."""

    rows: Tensor
    scores: Tensor
    cosines: Tensor

    def with_similarity(self, scale: float | Tensor) -> "Candidates":
        """Re-ranks the candidates by matching score + scale x cosine, with one scale or one for each query (Q, 1).

        If the negatives of ITM are drawn with probability proportional to exp(scale x cosine), its log-odds are the
        true ones minus scale x cosine; the sum restores them.
        """
        return _ordered(self.rows, self.scores + scale * self.cosines, self.cosines)


class TwoStageRetrieval(NamedTuple):
    """Candidate texts of the M images and candidate images of the T texts, by log-odds of matching."""

    texts_of_images: Candidates
    images_of_texts: Candidates


def retrieve_in_two_stages(
    model: RetrievalModel,
    processor: CBViLAProcessor,
    images: Iterable[Any],
    texts: Iterable[str],
    k: int = 64,
    batch_size: int = 64,
    progress: bool = True,
    folder: str | Path | None = None,
) -> TwoStageRetrieval:
    """Encodes images and texts, selects the k most similar ones in both directions, and re-ranks them by matching.

    A pair that is a candidate in both directions is matched once.

    Args:
        model: The model.
        processor: Its processor.
        images: M images.
        texts: T texts.
        k: Candidates per query.
        batch_size: Items encoded at a time.
        progress: Whether to show progress bars.
        folder: Where to store everything, for more than fits in memory. Calling again resumes an interrupted run.

    Raises:
        ValueError: If `k` is not positive, there is no image or no text, or the model cannot compare them by
            similarity (see [`check_comparable`]).
    """
    galleries = encode_both(model, processor, images, texts, batch_size, progress, folder)
    return rerank(model, *galleries, k, progress, folder and Path(folder) / "matches")


def encode_both(
    model: RetrievalModel,
    processor: CBViLAProcessor,
    images: Iterable[Any],
    texts: Iterable[str],
    batch_size: int = 64,
    progress: bool = True,
    folder: str | Path | None = None,
    max_length: int = 30,
    keep_states: bool = True,
    together: bool = False,
) -> tuple[Gallery, Gallery]:
    """Encodes images and texts into memory or into a folder.

    Args:
        model: The model.
        processor: Its processor.
        images: M images.
        texts: T texts.
        batch_size: Items encoded at a time.
        progress: Whether to show progress bars.
        folder: Where to store them, for more than fits in memory. Calling again resumes an interrupted run.
        max_length: Maximum number of tokens per text.
        keep_states: Whether to keep the states that matching needs.
        together: Whether all processes of torch's group share the work, in memory, and each gets all of it.
    """

    def encode(kind: str, items: Iterable[Any]) -> Gallery:
        encoder = GalleryEncoder(model, processor, kind, max_length, batch_size, progress, keep_states)
        if together:
            return encode_together(encoder, items)
        return encoder.encode(items) if folder is None else store_gallery(Path(folder) / kind, encoder, items)

    return encode("images", images), encode("texts", texts)


def rerank(
    model: RetrievalModel,
    images: Gallery,
    texts: Gallery,
    k: int = 64,
    progress: bool = True,
    folder: str | Path | None = None,
    together: bool = False,
) -> TwoStageRetrieval:
    """Selects and re-ranks candidates, as [`retrieve_in_two_stages`], of encoded images and texts.

    Args:
        model: The model.
        images: M encoded images.
        texts: T encoded texts.
        k: Candidates per query.
        progress: Whether to show a progress bar.
        folder: Where to store scores. Calling again resumes an interrupted run.
        together: Whether all processes of torch's group share the matching, and each gets all scores.
    """
    check_comparable(images, texts)
    text_cosines, text_rows = most_similar(images.blocks, texts.blocks, k)
    image_cosines, image_rows = most_similar(texts.blocks, images.blocks, k)
    num_texts = len(image_rows)
    wanted = [
        torch.arange(len(text_rows)).unsqueeze(1) * num_texts + text_rows,
        image_rows * num_texts + torch.arange(num_texts).unsqueeze(1),
    ]
    pairs, place = torch.cat([numbers.flatten() for numbers in wanted]).unique(return_inverse=True)
    pairs = torch.stack([pairs // num_texts, pairs % num_texts], dim=1)
    if together:
        logits = match_together(model, images, texts, pairs, progress)
    else:
        logits = match_pairs(model, images, texts, pairs, progress=progress, folder=folder)
    of_texts, of_images = logits[place].split([text_rows.numel(), image_rows.numel()])
    return TwoStageRetrieval(
        _ordered(text_rows, of_texts.view_as(text_rows), text_cosines),
        _ordered(image_rows, of_images.view_as(image_rows), image_cosines),
    )


def _ordered(rows: Tensor, scores: Tensor, cosines: Tensor) -> Candidates:
    """Sorts candidates by score; equal scores stay in their order."""
    best_first = scores.sort(dim=1, descending=True, stable=True)
    return Candidates(rows.gather(1, best_first.indices), best_first.values, cosines.gather(1, best_first.indices))


def reranked_scores(similarity: Tensor, candidates: Candidates) -> np.ndarray:
    """Returns scores (Q, G) that rank the whole gallery: candidates first, then the others by similarity (Q, G).

    Candidates keep their scores; the similarities of the others are shifted below the lowest of these.
    """
    others, scores = similarity.double(), candidates.scores.double()
    drop = others.amax(dim=1, keepdim=True) - scores.amin(dim=1, keepdim=True) + 1
    return (others - drop).scatter_(1, candidates.rows, scores).numpy()
