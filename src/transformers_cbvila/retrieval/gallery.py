"""Encoded images or texts, to be compared and matched any number of times.

Shapes: M images, T texts, S visual tokens, L text tokens, D hidden size of the encoder, E embedding size.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..model.modeling_cbvila_image_text_retrieval import CBViLAForImageTextRetrieval
from ..model.modeling_cbvila_pretraining import CBViLAForPreTraining

RetrievalModel = CBViLAForImageTextRetrieval | CBViLAForPreTraining


class Gallery(Protocol):
    """Encoded images or texts, in memory or on disk."""

    @property
    def blocks(self) -> Sequence[Tensor]:
        """Consecutive blocks of embeddings, (m, E) or (t, E) each, of unit length and in at least fp32."""

    @property
    def states(self) -> Sequence[Tensor]:
        """The inputs of matching: (S, D) of each image, class token first, or (L, D) of each text.

        Those of texts are [`text_query_states`]. In fp32 an image of 256 pixels takes 0.8 MB with a base model. Empty
        if the gallery was made for similarities only.
        """


class Encoded(NamedTuple):
    """A [`Gallery`] in CPU memory, with `embeds` (M, E) or (T, E) in one tensor."""

    embeds: Tensor
    states: Sequence[Tensor]

    @property
    def blocks(self) -> list[Tensor]:
        """All embeddings as one block."""
        return [self.embeds]


def concatenate(batches: Iterable[Encoded]) -> Encoded:
    """Returns batches as one gallery."""
    parts = list(batches)
    return Encoded(torch.cat([part.embeds for part in parts]), [states for part in parts for states in part.states])


def cosine_similarity(images: Gallery, texts: Gallery) -> Tensor:
    """Returns the cosines (M, T) of the embeddings, without the temperature.

    Raises:
        ValueError: See [`check_comparable`].
    """
    check_comparable(images, texts)
    return torch.cat(list(images.blocks)) @ torch.cat(list(texts.blocks)).T


def check_comparable(images: Gallery, texts: Gallery) -> None:
    """Checks that embeddings have the same size, which a model without a contrastive head does not guarantee.

    Raises:
        ValueError: If the sizes differ.
    """
    image_size, text_size = images.blocks[0].shape[1], texts.blocks[0].shape[1]
    if image_size != text_size:
        raise ValueError(
            f"Embeddings of images are {image_size} wide and those of texts {text_size}: this model was built with "
            "weight 0 for ITC and has no projections that would make them comparable. Match pairs with match_pairs, "
            "or use a model that was trained with ITC."
        )
