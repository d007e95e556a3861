"""Image tokenizers of any origin in one form: functions from images to the indices of codes.

Shapes: B images, N tokens of an image, R books, K codes of a book, V logits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature
from math import log2
from typing import Any, Protocol

import torch
from torch import Tensor

from ..retrieval.encoding import evaluating, pixel_values_of


class ImageTokenizer(Protocol):
    """What a codebook report asks of a tokenizer; any callable with a number of codes will do.

    One with several books, or whose number of bits is not log2 of its number of codes, has `book_sizes` and
    `bits_per_token(indices)` as [`IndexTokenizer`] has them.
    """

    @property
    def num_codes(self) -> int:
        """Number of codes; indices are below it."""

    def __call__(self, images: list[Any]) -> Tensor:
        """Returns integers (B, N) or (B, rows, columns) for PIL images, as many for each image."""


def book_sizes_of(tokenizer: ImageTokenizer) -> Sequence[int]:
    """Returns the number of codes of each book."""
    return getattr(tokenizer, "book_sizes", (tokenizer.num_codes,))


def bits_per_token(tokenizer: ImageTokenizer, indices: Tensor) -> float:
    """Returns the mean number of bits of tokens with these indices, if each code is as likely."""
    own = getattr(tokenizer, "bits_per_token", None)
    return log2(tokenizer.num_codes) if own is None else own(indices)


@dataclass(frozen=True)
class IndexTokenizer:
    """A tokenizer made of a function.

    Attributes:
        encode: Returns indices for PIL images: (B, N) or (B, rows, columns) and, with several books, a last dimension
            for these.
        book_sizes: K of each book.
    """

    encode: Callable[[list[Any]], Tensor]
    book_sizes: Sequence[int]

    @property
    def num_codes(self) -> int:
        """Number of codes of all books together."""
        return sum(self.book_sizes)

    def __call__(self, images: list[Any]) -> Tensor:
        """Returns indices (B, N · R), numbered through all books."""
        indices = self.encode(images)
        if len(self.book_sizes) > 1:
            indices = indices + torch.tensor([0, *self.book_sizes[:-1]], device=indices.device).cumsum(0)
        return indices.flatten(1)

    def bits_per_token(self, indices: Tensor) -> float:
        """Returns log2 of the number of codes, added up over books."""
        return sum(log2(size) for size in self.book_sizes)


class CBViLATokenizer:
    """The codebook of a CB-ViLA model as a tokenizer.

    Args:
        model: A model with a quantizer.
        processor: Its processor.

    Raises:
        ValueError: If the model has no quantizer.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor
        quantizer = model.cbvila.require_quantizer()
        self.num_codes: int = quantizer.num_codes
        self.book_sizes: Sequence[int] = quantizer.book_sizes

    def __call__(self, images: list[Any]) -> Tensor:
        """Returns indices (B, N · R), numbered through all books."""
        with evaluating(self.model):
            indices = self.model.tokenize(pixel_values_of(self.model, self.processor, images))
        return self.model.cbvila.quantizer.global_indices(indices).flatten(1).cpu()

    def bits_per_token(self, indices: Tensor) -> float:
        """Returns the bits of a patch; an adaptive quantizer has tables of several sizes."""
        return self.model.cbvila.quantizer.bits_per_token(indices)


def vector_quantize_tokenizer(quantizer: Any, features: Callable[[list[Any]], Tensor]) -> IndexTokenizer:
    """Returns a tokenizer of a module of `vector-quantize-pytorch`, put in evaluation mode for each call.

    Args:
        quantizer: A module such as `VectorQuantize`, `ResidualVQ` or `LFQ`, whose output has indices.
        features: Returns what the module quantizes, such as (B, N, D), for PIL images.

    Raises:
        ValueError: If the module does not tell its number of codes or, when called, returns no indices.
    """
    size, books = getattr(quantizer, "codebook_size", None), getattr(quantizer, "num_quantizers", 1)
    if not isinstance(size, int):
        raise ValueError(f"{type(quantizer).__name__} has no codebook_size: use IndexTokenizer(encode, book_sizes).")

    def encode(images: list[Any]) -> Tensor:
        with evaluating(quantizer):
            outputs = quantizer(features(images))
        found = [output for output in outputs if isinstance(output, Tensor) and not output.is_floating_point()]
        if not found:
            raise ValueError(f"{type(quantizer).__name__} returned no indices: use IndexTokenizer.")
        return found[0].long()

    return IndexTokenizer(encode, (size,) * books)


def transformers_tokenizer(model: Any, image_processor: Any) -> IndexTokenizer:
    """Returns a tokenizer of a model of transformers.

    Args:
        model: An image tokenizer (`ChameleonVQVAE`, `Emu3VQVAE`, `JanusVQVAE`), a model that has one, or one that
            scores the codes of patches, such as `BeitForMaskedImageModeling`.
        image_processor: Its image processor, which must give all images one size.

    Raises:
        ValueError: If it is none of these.
    """
    tokenizers = [part for part in model.modules() if hasattr(part, "encode") and hasattr(part, "quantize")]
    if tokenizers:
        tokenizer = tokenizers[0]
        sizes = (tokenizer.quantize.embedding.num_embeddings,)
        return IndexTokenizer(lambda images: _image_tokens(tokenizer, image_processor, images), sizes)
    size = getattr(model.config, "vocab_size", None)
    if not isinstance(size, int):
        raise ValueError(
            f"{type(model).__name__} has neither an image tokenizer nor scores of codes: use "
            "IndexTokenizer(encode, book_sizes) with a function of yours."
        )
    return IndexTokenizer(lambda images: _likeliest_tokens(model, image_processor, images), (size,))


def _image_tokens(tokenizer: Any, image_processor: Any, images: list[Any]) -> Tensor:
    """Returns the tokens (B, N) of images."""
    inputs = image_processor(images=images, return_tensors="pt")
    pixel_values = inputs["pixel_values"].to(tokenizer.device)
    options = {}
    if "image_sizes" in signature(tokenizer.encode).parameters:  # Emu3's crops what was padded
        options["image_sizes"] = inputs.get("image_sizes", [pixel_values.shape[-2:]] * len(images))
    with evaluating(tokenizer):
        tokens = tokenizer.encode(pixel_values, **options).image_tokens
    if isinstance(tokens, list):
        tokens = torch.stack(tokens)
    return tokens.reshape(len(images), -1).cpu()


def _likeliest_tokens(model: Any, image_processor: Any, images: list[Any]) -> Tensor:
    """Returns the likeliest codes (B, N) of patches."""
    pixel_values = image_processor(images=images, return_tensors="pt")["pixel_values"].to(model.device)
    with evaluating(model):
        return model(pixel_values).logits.argmax(-1).cpu()
