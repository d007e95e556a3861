"""Images and texts encoded once, each on its own, to be compared and matched as often as one likes.

Shapes: M images, T texts, S visual tokens, L text tokens, D width of the encoder's states, E embedding width.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from operator import length_hint
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from ..data.collators import token_limit
from ..data.pairs import stable_id
from ..model.image_loading_cbvila import DECODING_ERRORS
from ..model.item_lists_cbvila import check_item, is_by_position, items_of
from ..model.losses_cbvila import at_least_fp32
from ..model.messages_cbvila import one_line
from ..model.modeling_cbvila_image_text_retrieval import CBViLAForImageTextRetrieval
from ..model.modeling_cbvila_pretraining import CBViLAForPreTraining
from ..model.number_checks_cbvila import check_whole
from ..model.processing_cbvila import CBViLAProcessor
from ..model.unknown_tokens_cbvila import warn_of_unknown_texts
from .matching import text_questions

RetrievalModel = CBViLAForImageTextRetrieval | CBViLAForPreTraining


class Gallery(Protocol):
    """Images or texts that were encoded once, wherever they lie.

    `blocks` are their embeddings (m or t, E), one part after the other, of length 1 and in at least fp32. `states` are
    what matching needs: of each image (S, D), class token first, and of each text (L, D), see [`text_questions`]; in
    fp32 a base model's take 0.8 MB per image of 256 pixels. There are none of a gallery made for similarities alone.
    """

    @property
    def blocks(self) -> Sequence[Tensor]: ...

    @property
    def states(self) -> Sequence[Tensor]: ...


class Encoded(NamedTuple):
    """A [`Gallery`] in the CPU's memory, whatever the device of the model, with its `embeds` (M or T, E) in one."""

    embeds: Tensor
    states: Sequence[Tensor]

    @property
    def blocks(self) -> list[Tensor]:
        return [self.embeds]


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


def weights_id(model: Any) -> int:
    """A number that tells whether two galleries were encoded by the same weights in the same precision."""
    tensors = model.state_dict()
    return stable_id(
        *(tensors[name].cpu().contiguous().flatten().view(torch.uint8).numpy() for name in sorted(tensors))
    )


def encode_images(
    model: RetrievalModel,
    processor: CBViLAProcessor,
    images: Iterable[Any],
    batch_size: int = 64,
    progress: bool = True,
) -> Encoded:
    """Encodes M images of any kind that the processor takes. They may come from a generator.

    Raises:
        ValueError: If there are none, or one cannot be read or encoded, or not to finite numbers; the message says
            which.
    """
    return gather(encode_batches(model, processor, "images", images, batch_size=batch_size, progress=progress))


def encode_texts(
    model: RetrievalModel,
    processor: CBViLAProcessor,
    texts: Iterable[str],
    max_length: int = 30,
    batch_size: int = 64,
    progress: bool = True,
) -> Encoded:
    """Encodes T texts, cut to `max_length` tokens (or to what the model takes, when that is less).

    Raises:
        ValueError: If there are none, or one cannot be encoded; the message says which.
    """
    return gather(encode_batches(model, processor, "texts", texts, max_length, batch_size, progress))


def gather(batches: Iterable[Encoded]) -> Encoded:
    """Batches as one."""
    parts = list(batches)
    return Encoded(torch.cat([part.embeds for part in parts]), [states for part in parts for states in part.states])


def encode_batches(
    model: RetrievalModel,
    processor: CBViLAProcessor,
    kind: str,
    items: Iterable[Any],
    max_length: int = 30,
    batch_size: int = 64,
    progress: bool = True,
    skip: int = 0,
    keep_states: bool = True,
) -> Iterator[Encoded]:
    """What [`encode_images`] or [`encode_texts`] makes of `"images"` or `"texts"`, batch by batch.

    Warns of texts of which the tokenizer knows nothing.

    Args:
        items: Many of them, in a form that [`items_of`] takes.
        skip: How many of the first items to leave out.
        keep_states: Whether batches have states.
    """

    def encode(batch: list[Any]) -> tuple[Tensor, list[Tensor]]:
        if kind == "images":
            output = model.cbvila.get_image_features(pixel_values_of(model, processor, batch), return_dict=True)
            return output.pooler_output, list(output.last_hidden_state.cpu().unbind()) if keep_states else []
        ids, mask = tokens_of(model, processor, batch, max_length)
        output = model.cbvila.get_text_features(ids, mask, return_dict=True)
        return output.pooler_output, text_questions(model, output.last_hidden_state, mask) if keep_states else []

    check_whole("max_length", max_length)
    check_whole("batch_size", batch_size)
    items, start, warned = items_of(items, kind), skip, kind != "texts"
    rest = _skip(items, skip)
    with tqdm(total=length_hint(items) or None, initial=skip, desc=f"Encoding {kind}", disable=not progress) as bar:
        while batch := _read(rest, batch_size, kind, start):
            with evaluating(model):
                pooled, states = _name_the_bad(encode, batch, kind, start)
                embeds = F.normalize(at_least_fp32(pooled), dim=-1).cpu()
            _check_finite(embeds, kind, start)
            warned = warned or warn_of_unknown_texts(processor.tokenizer, batch, kind)
            yield Encoded(embeds, states)
            start += len(batch)
            bar.update(len(batch))
    if start == 0:
        raise ValueError(f"Encoding {kind}: there are none; pass at least one.")


def _skip(items: Any, count: int) -> Iterator[Any]:
    """The items behind the first `count`, which are not even read where they need not be."""
    if is_by_position(items):
        return (items[i] for i in range(count, len(items)))
    return islice(items, count, None)


def _read(items: Iterator[Any], count: int, kind: str, start: int) -> list[Any]:
    batch: list[Any] = []
    try:
        for item in islice(items, count):
            batch.append(item)
    except DECODING_ERRORS as error:
        place = f"{kind}[{start + len(batch)}]"
        raise ValueError(f"{place} cannot be read: {one_line(str(error))} ({type(error).__name__}).") from error
    for row, item in enumerate(batch, start):
        check_item(item, f"{kind}[{row}]")
    return batch


def _name_the_bad(encode: Callable, batch: list[Any], kind: str, start: int) -> Any:
    """Encodes a batch; where that fails, says which item it is."""
    try:
        return encode(batch)
    except (ValueError, OSError):
        for row, item in enumerate(batch, start):
            try:
                encode([item])
            except (ValueError, OSError) as error:
                raise ValueError(f"{kind}[{row}] cannot be encoded: {error}") from error
        raise


def _check_finite(embeds: Tensor, kind: str, start: int) -> None:
    finite = embeds.isfinite().all(dim=1)
    if not finite.all():
        raise ValueError(
            f"The embedding of {kind}[{start + int((~finite).nonzero()[0])}] is not finite: the model's weights are "
            "broken, or its precision overflows (try float32)."
        )


def cosine_similarity(images: Gallery, texts: Gallery) -> Tensor:
    """(M, T) cosines of the embeddings, without the temperature.

    Raises:
        ValueError: See [`check_comparable`].
    """
    check_comparable(images, texts)
    return torch.cat(list(images.blocks)) @ torch.cat(list(texts.blocks)).T


def check_comparable(images: Gallery, texts: Gallery) -> None:
    """Raises a ValueError if embeddings have different widths, as of a model without a contrastive head they may."""
    of_images, of_texts = images.blocks[0].shape[1], texts.blocks[0].shape[1]
    if of_images != of_texts:
        raise ValueError(
            f"Embeddings of images are {of_images} wide and those of texts {of_texts}: this model was built with "
            "weight 0 for ITC and has no projections that would make them comparable. Match pairs with match_pairs, "
            "or use a model that was trained with ITC."
        )
