"""Encodes images and texts for retrieval, batch by batch.

Shapes: B batch, S visual tokens, L text tokens, D hidden size of the encoder, E embedding size.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from operator import length_hint
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from ..data.collators import token_limit
from ..model.image_loading_cbvila import DECODING_ERRORS
from ..model.item_lists_cbvila import check_item, is_by_position, items_of
from ..model.losses_cbvila import at_least_fp32
from ..model.messages_cbvila import one_line
from ..model.number_checks_cbvila import check_whole
from ..model.processing_cbvila import CBViLAProcessor
from ..model.unknown_tokens_cbvila import warn_of_unknown_texts
from .gallery import Encoded, RetrievalModel, concatenate
from .matching import text_query_states


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Switches dropout and gradients off for a block and restores the model's mode after it."""
    was_training = model.training
    # Setting the mode takes several times as long as asking for it, which counts where a small model encodes a batch.
    has_to_switch = any(module.training for module in model.modules())
    if has_to_switch:
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        if has_to_switch:
            model.train(was_training)


def pixel_values_of(model: Any, processor: CBViLAProcessor, images: list[Any]) -> Tensor:
    """Returns preprocessed images (B, 3, H, W) on the model's device."""
    return processor(images=images, return_tensors="pt")["pixel_values"].to(model.device)


def tokens_of(model: Any, processor: CBViLAProcessor, texts: list[str], max_length: int = 30) -> tuple[Tensor, Tensor]:
    """Returns token ids and attention mask, (B, L) each, on the model's device.

    Texts are truncated to `max_length` tokens, or to the model's maximum if that is less.
    """
    limit = token_limit(processor, max_length)
    tokens = processor(text=texts, padding=True, truncation=True, max_length=limit, return_tensors="pt")
    return tokens["input_ids"].to(model.device), tokens["attention_mask"].to(model.device)


@dataclass(frozen=True)
class GalleryEncoder:
    """Encodes images or texts with one model.

    Attributes:
        model: The model.
        processor: Its processor.
        kind: `"images"` or `"texts"`.
        max_length: Maximum number of tokens per text.
        batch_size: Items per batch.
        progress: Whether to show a progress bar.
        keep_states: Whether to keep the states that matching needs.
    """

    model: RetrievalModel
    processor: CBViLAProcessor
    kind: str
    max_length: int = 30
    batch_size: int = 64
    progress: bool = True
    keep_states: bool = True

    def encode(self, items: Iterable[Any]) -> Encoded:
        """Encodes items into memory; see [`batches`] for arguments and errors."""
        return concatenate(self.batches(items))

    def batches(self, items: Iterable[Any], skip: int = 0) -> Iterator[Encoded]:
        """Encodes items batch by batch, and warns of texts that consist of unknown tokens.

        Args:
            items: Images or texts in a form that [`items_of`] takes, generators included.
            skip: How many of the first items to leave out.

        Raises:
            ValueError: If there are no items, or one cannot be read or encoded, or not to finite numbers; the message
                names the item.
        """
        check_whole("max_length", self.max_length)
        check_whole("batch_size", self.batch_size)
        kind, items = self.kind, items_of(items, self.kind)
        start, warned, rest = skip, kind != "texts", _skip(items, skip)
        total = length_hint(items) or None
        with tqdm(total=total, initial=skip, desc=f"Encoding {kind}", disable=not self.progress) as bar:
            while batch := self._read(rest, start):
                with evaluating(self.model):
                    encoded = _normalized(*self._forward_or_name_item(batch, start))
                self._check_finite(encoded.embeds, start)
                warned = warned or warn_of_unknown_texts(self.processor.tokenizer, batch, kind)
                yield encoded
                start += len(batch)
                bar.update(len(batch))
        if start == 0:
            raise ValueError(f"Encoding {kind}: there are none; pass at least one.")

    def encode_pixels(self, pixel_values: Tensor) -> Encoded:
        """Encodes preprocessed images (B, 3, H, W).

        Raises:
            ValueError: If an embedding is not finite.
        """
        with evaluating(self.model):
            encoded = _normalized(*self._image_forward(pixel_values.to(self.model.device)))
        self._check_finite(encoded.embeds, 0)
        return encoded

    def _read(self, items: Iterator[Any], start: int) -> list[Any]:
        batch: list[Any] = []
        try:
            for item in islice(items, self.batch_size):
                batch.append(item)
        except DECODING_ERRORS as error:
            place = f"{self.kind}[{start + len(batch)}]"
            raise ValueError(f"{place} cannot be read: {one_line(str(error))} ({type(error).__name__}).") from error
        for row, item in enumerate(batch, start):
            check_item(item, f"{self.kind}[{row}]")
        return batch

    def _forward(self, batch: list[Any]) -> tuple[Tensor, list[Tensor]]:
        """Returns embeddings (B, E) before normalization, and the states of each item if they are kept."""
        model: Any = self.model
        if self.kind == "images":
            return self._image_forward(pixel_values_of(model, self.processor, batch))
        ids, mask = tokens_of(model, self.processor, batch, self.max_length)
        output = model.cbvila.get_text_features(ids, mask, return_dict=True)
        states = text_query_states(model, output.last_hidden_state, mask) if self.keep_states else []
        return output.pooler_output, states

    def _image_forward(self, pixel_values: Tensor) -> tuple[Tensor, list[Tensor]]:
        model: Any = self.model
        output = model.cbvila.get_image_features(pixel_values, return_dict=True)
        return output.pooler_output, list(output.last_hidden_state.cpu().unbind()) if self.keep_states else []

    def _forward_or_name_item(self, batch: list[Any], start: int) -> tuple[Tensor, list[Tensor]]:
        try:
            return self._forward(batch)
        except (ValueError, OSError):
            for row, item in enumerate(batch, start):
                try:
                    self._forward([item])
                except (ValueError, OSError) as error:
                    raise ValueError(f"{self.kind}[{row}] cannot be encoded: {error}") from error
            raise

    def _check_finite(self, embeds: Tensor, start: int) -> None:
        finite = embeds.isfinite().all(dim=1)
        if not finite.all():
            raise ValueError(
                f"The embedding of {self.kind}[{start + int((~finite).nonzero()[0])}] is not finite: the model's "
                "weights are broken, or its precision overflows (try float32)."
            )


def _normalized(pooled: Tensor, states: list[Tensor]) -> Encoded:
    return Encoded(F.normalize(at_least_fp32(pooled), dim=-1).cpu(), states)


def _skip(items: Any, count: int) -> Iterator[Any]:
    """Skips the first `count` items, without reading them if items can be read by position."""
    if is_by_position(items):
        return (items[i] for i in range(count, len(items)))
    return islice(items, count, None)
