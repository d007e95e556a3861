"""Similarity of all pairs of a batch, and the pairs that image-text matching is trained on (Sec. III-C).

Pretraining and retrieval share this file.

Shapes: b local pairs, B pairs of all processes in training (otherwise b), L text tokens, S visual tokens, D hidden
size, Dv vision hidden size, E projection size, k negatives.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .distributed_cbvila import Processes
from .losses_cbvila import itc_loss, soft_cross_entropy
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
        embeds: (B, E) image and (B, E) text embeddings of all processes, in the order of the columns.
    """

    per_image: Tensor
    matches: Tensor
    per_text: Tensor
    text_matches: Tensor
    first: int
    embeds: tuple[Tensor, Tensor]

    def itc_loss(self) -> Tensor:
        """Computes the contrastive loss, averaged over the local pairs; see [`itc_loss`]."""
        return itc_loss(*self[:5])

    def soft_itc_loss(self, of_images: Tensor, of_texts: Tensor) -> Tensor:
        """Computes the contrastive loss with targets (b, B) of images and of texts."""
        return (soft_cross_entropy(self.per_image, of_images) + soft_cross_entropy(self.per_text, of_texts)) / 2

    def negatives(self, hardness: float | None, seed: int | Tensor | None, count: int = 1) -> tuple[Tensor, Tensor]:
        """Chooses negative images for each text and negative texts for each image; see [`choose_negatives`]."""
        return choose_negatives(self.per_image, self.matches, hardness, *self[2:5], seed=seed, count=count)


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
        return local_rows(per_image, matches, per_image, ids.first, (images, texts))
    per_text = per_image.T if ids.processes is None else similarity(images, text_embeds).T
    return local_rows(per_image, matches, per_text, ids.first, (images, texts))


def local_rows(
    per_image: Tensor, matches: Tensor, per_text: Tensor, first: int, embeds: tuple[Tensor, Tensor]
) -> PairSimilarity:
    """Selects the local rows (b, B) of `matches` (B, B), which covers all processes."""
    count = per_image.shape[0]
    own, transposed = matches.narrow(0, first, count), matches.T.narrow(0, first, count)
    return PairSimilarity(per_image, own, per_text, transposed, first, embeds)


class ITMBatch(NamedTuple):
    """Input of image-text matching.

    The true pairs come first; then the texts with their first negative image, with their second, up to the k-th; then
    the images with their first negative text, up to the k-th.

    Args:
        texts: ((1 + 2k) b, L, D) text states.
        attention_mask: ((1 + 2k) b, L), 0 on padding.
        image_index: ((1 + 2k) b,) image of each text: a row of the local images (b', S, Dv) followed by
            `fetched_images`.
        fetched_images: (k b, S, Dv) negative images from other processes; `None` on a single process.
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
    """Pairs each text with negative images and each image with negative texts.

    Args:
        processes: The processes whose pairs the negatives index; `None` if they index the local batch. Negatives are
            fetched from their owners: k b images and k b texts, regardless of the number of processes.
        images: (b', S, Dv) visual tokens.
        image_index: (b,) row of `images` for each text.
        texts: (b, L, D) text states.
        attention_mask: (b, L), 0 on padding.
        negatives: Image indices for each text and text indices for each image, (b, k) each; -1 (no negative) is
            replaced by an arbitrary one.
    """
    negative_image, negative_text = (index.clamp_min(0).T for index in negatives)  # (k, b)
    count, fetched_images = len(negative_image), None
    if processes is None:
        negative_image_index = image_index.index_select(0, negative_image.flatten())
        negative_texts = texts.index_select(0, negative_text.flatten())
        negative_mask = None if attention_mask is None else attention_mask.index_select(0, negative_text.flatten())
    else:
        exchanges = processes.exchanges(*negative_image, *negative_text)
        if attention_mask is None:  # texts of other processes may have other lengths
            attention_mask = torch.ones(texts.shape[:2], device=texts.device)
        texts, attention_mask = processes.pad_texts(texts), processes.pad_texts(attention_mask.long())
        negative_texts = torch.cat([fetch(texts) for fetch in exchanges[count:]])
        negative_mask = torch.cat([fetch(attention_mask) for fetch in exchanges[count:]])
        fetched_images = torch.cat([fetch(images, image_index) for fetch in exchanges[:count]])
        negative_image_index = torch.arange(fetched_images.shape[0], device=image_index.device) + images.shape[0]
    return ITMBatch(
        torch.cat([*[texts] * (1 + count), negative_texts]),
        None if attention_mask is None else torch.cat([*[attention_mask] * (1 + count), negative_mask]),
        torch.cat([image_index, negative_image_index, image_index.repeat(count)]),
        fetched_images,
    )
