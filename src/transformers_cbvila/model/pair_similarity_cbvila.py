"""Similarity of all pairs of a batch, and the pairs that image-text matching is trained on (Sec. III-C).

Pretraining and retrieval share this file.

Shapes: b local pairs, B pairs of all processes in training (otherwise b), L text tokens, S visual tokens, D hidden
size, Dv vision hidden size, E projection size.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .distributed_cbvila import Processes
from .losses_cbvila import itc_loss
from .negatives_cbvila import choose_negatives
from .pair_ids_cbvila import PairIds


class PairSimilarity(NamedTuple):
    """Similarity of the local images and texts to those of all processes.

    Args:
        per_image: (b, B) similarity logits, images in rows and texts in columns.
        matches: (b, B) bool, whether the text is known to match the image.
        per_text: (b, B) similarity logits, texts in rows and images in columns.
        text_matches: (b, B) bool, the matches in the layout of `per_text`.
        first: Column of the first local pair; the other local pairs follow it.
    """

    per_image: Tensor
    matches: Tensor
    per_text: Tensor
    text_matches: Tensor
    first: int

    def itc_loss(self) -> Tensor:
        """Computes the contrastive loss, averaged over the local pairs; see [`itc_loss`]."""
        return itc_loss(*self)

    def negatives(self, hardness: float | None, seed: int | Tensor | None) -> tuple[Tensor, Tensor]:
        """Chooses a negative image for each text and a negative text for each image; see [`choose_negatives`]."""
        return choose_negatives(self.per_image, self.matches, hardness, *self[2:], seed=seed)


def pair_similarity(
    ids: PairIds,
    similarity: Callable[[Tensor, Tensor], Tensor | None],
    image_embeds: Tensor,
    text_embeds: Tensor,
) -> PairSimilarity:
    """Computes the similarity of local embeddings (b, E) to those of all processes.

    Args:
        ids: Ids of the pairs, and the processes to gather embeddings from.
        similarity: Maps embeddings of images (rows) and texts (columns) to logits, or to `None` if their sizes differ.
        image_embeds: (b, E) image embeddings of unit length.
        text_embeds: (b, E) text embeddings of unit length.
    """
    images, texts = image_embeds, text_embeds
    if image_embeds.shape[1] == text_embeds.shape[1]:
        images, texts = ids.gather_embeds(image_embeds, text_embeds)
    matches = ids.matches()
    per_image = similarity(image_embeds, texts)
    if per_image is None:  # encoders of different hidden sizes without projections: all pairs are equally similar
        per_image = torch.zeros_like(matches[: image_embeds.shape[0]], dtype=torch.float32)
        return _local_rows(per_image, matches, per_image, ids.first)
    per_text = per_image.T if ids.processes is None else similarity(images, text_embeds).T
    return _local_rows(per_image, matches, per_text, ids.first)


def _local_rows(per_image: Tensor, matches: Tensor, per_text: Tensor, first: int) -> PairSimilarity:
    """Selects the local rows (b, B) of `matches` (B, B), which covers all processes."""
    count = per_image.shape[0]
    own, transposed = matches.narrow(0, first, count), matches.T.narrow(0, first, count)
    return PairSimilarity(per_image, own, per_text, transposed, first)


class ITMBatch(NamedTuple):
    """Input of image-text matching: true pairs, then pairs with a negative image, then pairs with a negative text.

    Args:
        texts: (3b, L, D) text states.
        attention_mask: (3b, L), 0 on padding.
        image_index: (3b,) image of each text: a row of the local images (b', S, Dv) followed by `fetched_images`.
        fetched_images: (b, S, Dv) negative images from other processes; `None` on a single process.
    """

    texts: Tensor
    attention_mask: Tensor | None
    image_index: Tensor
    fetched_images: Tensor | None = None


def itm_batch(
    processes: Processes | None,
    images: Tensor,
    image_index: Tensor,
    texts: Tensor,
    attention_mask: Tensor | None,
    negatives: tuple[Tensor, Tensor],
) -> ITMBatch:
    """Pairs each text with a negative image and each image with a negative text.

    Args:
        processes: The processes whose pairs the negatives index; `None` if they index the local batch. Negatives are
            fetched from their owners: b images and b texts, regardless of the number of processes.
        images: (b', S, Dv) visual tokens.
        image_index: (b,) row of `images` for each text.
        texts: (b, L, D) text states.
        attention_mask: (b, L), 0 on padding.
        negatives: An image index for each text and a text index for each image, (b,) each; -1 (no negative) is
            replaced by an arbitrary one.
    """
    negative_image, negative_text = (index.clamp_min(0) for index in negatives)
    fetched_images = None
    if processes is None:
        negative_image_index = image_index.index_select(0, negative_image)
        negative_texts = texts.index_select(0, negative_text)
        negative_mask = None if attention_mask is None else attention_mask.index_select(0, negative_text)
    else:
        fetch_images, fetch_texts = processes.exchanges(negative_image, negative_text)
        if attention_mask is None:  # texts of other processes may have other lengths
            attention_mask = torch.ones(texts.shape[:2], device=texts.device)
        texts, attention_mask = processes.pad_texts(texts), processes.pad_texts(attention_mask.long())
        negative_texts, negative_mask = fetch_texts(texts), fetch_texts(attention_mask)
        negative_image_index = torch.arange(image_index.shape[0], device=image_index.device) + images.shape[0]
        fetched_images = fetch_images(images, image_index)
    return ITMBatch(
        torch.cat([texts, texts, negative_texts]),
        None if attention_mask is None else torch.cat([attention_mask, attention_mask, negative_mask]),
        torch.cat([image_index, negative_image_index, image_index]),
        fetched_images,
    )
