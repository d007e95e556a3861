"""Keeps those of many drawings that match their caption best, as DALL·E does (arXiv 2102.12092, Sec. 2.6)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from ..model.processing_cbvila import CBViLAProcessor
from ..retrieval.gallery import RetrievalModel
from ..retrieval.pair_matching import match_pairs
from ..retrieval.reranking import encode_both


def best_matching(
    model: RetrievalModel,
    processor: CBViLAProcessor,
    captions: Sequence[str],
    drawn: Sequence[Sequence[Image.Image]],
    keep: int = 1,
    batch_size: int = 64,
    progress: bool = True,
) -> list[list[int]]:
    """Returns the numbers of the drawings of each caption that match it best, best first.

    Args:
        model: A model that matches images with texts; it need not be the one that has drawn them.
        processor: Its processor.
        captions: The captions.
        drawn: The drawings of each caption, such as [`draw_captions`] returns.
        keep: How many of each caption; as many as there are, if there are fewer.
        batch_size: Drawings encoded at a time.
        progress: Whether to show progress bars.

    Raises:
        ValueError: If there are no drawings for a caption, or the model was trained without matching.
    """
    if len(drawn) != len(captions) or not all(drawn) or keep < 1:
        counts = [len(pictures) for pictures in drawn]
        raise ValueError(
            f"{len(captions)} captions, drawings of each: {counts}, keep={keep}; give drawings for every caption, and "
            "keep at least 1."
        )
    check_reranks(model)
    pictures = [picture for of_caption in drawn for picture in of_caption]
    owners = [number for number, of_caption in enumerate(drawn) for _ in of_caption]
    galleries = encode_both(model, processor, pictures, captions, batch_size, progress)
    scores = match_pairs(model, *galleries, torch.tensor(list(enumerate(owners))), progress=progress)
    parts = scores.split([len(of_caption) for of_caption in drawn])
    return [part.argsort(descending=True, stable=True)[:keep].tolist() for part in parts]


def check_reranks(model: RetrievalModel) -> None:
    """Raises a ValueError for a model that was trained without matching."""
    if not model.config.needs("hard_negatives"):
        raise ValueError(
            "This model was trained without matching (ITM has weight 0), so it cannot say which drawing fits its "
            "text: name one that can, such as cbvila-scenes."
        )
