"""Images and texts encoded once, each on its own, to be compared and matched as often as one likes.

Shapes: M images, T texts, S visual tokens, L text tokens, D width of the encoder's states, E embedding width.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from operator import length_hint
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from ..data.collators import token_limit
from ..model.losses_cbvila import at_least_fp32
from ..model.modeling_cbvila_image_text_retrieval import CBViLAForImageTextRetrieval
from ..model.modeling_cbvila_pretraining import CBViLAForPreTraining
from ..model.processing_cbvila import CBViLAProcessor

RetrievalModel = CBViLAForImageTextRetrieval | CBViLAForPreTraining


class Encoded(NamedTuple):
    """Images or texts as an encoder sees them, in the CPU's memory, whatever the device of the model.

    `embeds` (M or T, E) have length 1, in at least fp32; `states` are of each image (S, D), class token first, and of
    each text (L, D) without its padding. In fp32 a base model's states take 0.8 MB per image of 256 pixels.
    """

    embeds: Tensor
    states: list[Tensor]


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Neither dropout nor gradients; the model's mode is restored."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def pixel_values_of(model: Any, processor: CBViLAProcessor, images: list[Any]) -> Tensor:
    """Images as the model takes them (B, 3, H, W), on its device."""
    return processor(images=images, return_tensors="pt")["pixel_values"].to(model.device)


def tokens_of(model: Any, processor: CBViLAProcessor, texts: list[str], max_length: int = 30) -> tuple[Tensor, Tensor]:
    """Ids and mask (B, L) of texts cut to `max_length` tokens, or to what the model takes, on its device."""
    limit = token_limit(processor, max_length)
    tokens = processor(text=texts, padding=True, truncation=True, max_length=limit, return_tensors="pt")
    return tokens["input_ids"].to(model.device), tokens["attention_mask"].to(model.device)


def encode_images(
    model: RetrievalModel,
    processor: CBViLAProcessor,
    images: Iterable[Any],
    batch_size: int = 64,
    progress: bool = True,
) -> Encoded:
    """Encodes M images of any kind that the processor takes. They may come from a generator."""

    def encode(batch: list[Any]) -> tuple[Tensor, list[Tensor]]:
        output = model.cbvila.get_image_features(pixel_values_of(model, processor, batch), return_dict=True)
        return output.pooler_output, list(output.last_hidden_state.cpu().unbind())

    return _encode(model, encode, images, batch_size, "Encoding images", progress)


def encode_texts(
    model: RetrievalModel,
    processor: CBViLAProcessor,
    texts: Iterable[str],
    max_length: int = 30,
    batch_size: int = 64,
    progress: bool = True,
) -> Encoded:
    """Encodes T texts, cut to `max_length` tokens (or to what the model takes, when that is less)."""

    def encode(batch: list[str]) -> tuple[Tensor, list[Tensor]]:
        ids, mask = tokens_of(model, processor, batch, max_length)
        output = model.cbvila.get_text_features(ids, mask, return_dict=True)
        rows = zip(output.last_hidden_state.cpu(), mask.cpu().bool(), strict=True)
        return output.pooler_output, [states[kept] for states, kept in rows]

    return _encode(model, encode, texts, batch_size, "Encoding texts", progress)


def _encode(model, encode: Callable, items: Iterable[Any], batch_size: int, title: str, progress: bool) -> Encoded:
    embeds, states, rest = [], [], iter(items)
    with evaluating(model), tqdm(total=length_hint(items) or None, desc=title, disable=not progress) as bar:
        while batch := list(islice(rest, batch_size)):
            pooled, of_items = encode(batch)
            embeds.append(F.normalize(at_least_fp32(pooled), dim=-1).cpu())
            states += of_items
            bar.update(len(batch))
    if not embeds:
        raise ValueError(f"{title}: there are none; pass at least one.")
    return Encoded(torch.cat(embeds), states)


def cosine_similarity(images: Encoded, texts: Encoded) -> Tensor:
    """(M, T) cosines of the embeddings, without the temperature.

    Raises:
        ValueError: If the embeddings have different widths, as those of a model without a contrastive head may have.
    """
    of_images, of_texts = images.embeds.shape[1], texts.embeds.shape[1]
    if of_images != of_texts:
        raise ValueError(
            f"Embeddings of images are {of_images} wide and those of texts {of_texts}: this model was built with "
            "itc_weight=0 and has no projections that would make them comparable. Match pairs with match_pairs, or "
            "use a model that was trained with itc_weight > 0."
        )
    return images.embeds @ texts.embeds.T
