"""Pictures whose visual words are exchanged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image

from ..model.modeling_cbvila_reconstruction import CBViLAModelWithReconstruction
from ..model.processing_cbvila import CBViLAProcessor
from ..retrieval.encoding import evaluating, pixel_values_of, tokens_of
from .steps import check_patches


def exchange_words(
    model: CBViLAModelWithReconstruction,
    processor: CBViLAProcessor,
    image: Any,
    words: Mapping[int, int],
    caption: str | None = None,
) -> Image.Image:
    """Paints a picture from its visual words, some of which are exchanged.

    Args:
        model: The model, whose codebook is one table.
        processor: Its processor.
        image: The picture.
        words: Codes by the number of their patch, row by row from 0. Without any, the picture is what its own visual
            words hold of it.
        caption: A caption to paint under, if any.

    Raises:
        ValueError: If there is no such patch or code, the model has several visual words for each patch, or it cannot
            draw from visual words alone.
    """
    pixel_values = pixel_values_of(model, processor, [image])
    grid = model.patch_grid(pixel_values)
    check_patches(words, grid[0] * grid[1])
    ids, attention_mask = (None, None) if caption is None else tokens_of(model, processor, [caption])
    with evaluating(model):
        indices = model.tokenize(pixel_values)
        if indices.dim() > 2:
            raise ValueError(
                f"This model has {indices.shape[-1]} visual words for each patch: exchange them in what `tokenize` "
                "returns, and pass it to `detokenize`."
            )
        number = sum(model.cbvila.quantizer.book_sizes)
        for patch, code in words.items():
            if not 0 <= code < number:
                raise ValueError(f"There is no visual word {code}: the codebook has {number}, numbered from 0.")
            indices[0, patch] = code
        (painted,) = processor.postprocess(model.detokenize(indices, ids, attention_mask, grid=grid))
    return painted
