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
from .negatives_cbvila import choose_negatives, fingerprints, known_matches


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
    processes: Processes | None,
    similarity: Callable[[Tensor, Tensor], Tensor | None],
    image_embeds: Tensor,
    text_embeds: Tensor,
    image_ids: Tensor,
    text_ids: Tensor,
    known_text_ids: Tensor | None,
) -> PairSimilarity:
    """Computes the similarity of local embeddings (b, E) to those of all processes.

    Args:
        processes: The processes to gather embeddings from; `None` for the local batch alone.
        similarity: Maps embeddings of images (rows) and texts (columns) to logits, or to `None` if their sizes differ.
        image_ids, text_ids, known_text_ids: (b,), (b,) and (b, C), see [`known_matches`].
    """
    images, texts, first = image_embeds, text_embeds, 0
    if processes is not None:
        first, width = processes.first, image_embeds.shape[1]
        if image_embeds.shape[1] == text_embeds.shape[1]:  # a single collective for both
            images, texts = processes.gather(torch.cat([image_embeds, text_embeds], dim=1)).split(width, dim=1)
        image_ids, text_ids, known_text_ids = gather_ids(processes, image_ids, text_ids, known_text_ids)
    matches = known_matches(text_ids.shape[0], text_ids.device, image_ids, text_ids, known_text_ids)
    per_image = similarity(image_embeds, texts)
    if per_image is None:  # encoders of different hidden sizes without projections: all pairs are equally similar
        per_image = torch.zeros_like(matches[: image_embeds.shape[0]], dtype=torch.float32)
        return _local_rows(per_image, matches, per_image, first)
    per_text = per_image.T if processes is None else similarity(images, text_embeds).T
    return _local_rows(per_image, matches, per_text, first)


def _local_rows(per_image: Tensor, matches: Tensor, per_text: Tensor, first: int) -> PairSimilarity:
    """Selects the local rows (b, B) of `matches` (B, B), which covers all processes."""
    count = per_image.shape[0]
    own, transposed = matches.narrow(0, first, count), matches.T.narrow(0, first, count)
    return PairSimilarity(per_image, own, per_text, transposed, first)


def gather_ids(processes: Processes, image_ids: Tensor, text_ids: Tensor, known_text_ids: Tensor | None):
    """Gathers the ids of all processes with one collective; rows with fewer known ids are padded with -1."""
    known = text_ids.new_full((text_ids.shape[0], processes.captions), -1)
    if known_text_ids is not None:
        known[:, : known_text_ids.shape[1]] = known_text_ids
    gathered = processes.gather(torch.cat([image_ids.unsqueeze(1), text_ids.unsqueeze(1), known], dim=1))
    return gathered[:, 0], gathered[:, 1], gathered[:, 2:] if processes.captions > 0 else None


def pair_ids(
    pixel_values: Tensor,
    texts: Tensor,
    attention_mask: Tensor | None,
    image_ids: Tensor | None,
    text_ids: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Ids of images (b', 3, H, W) and texts; those not given are fingerprints, which equal images or texts share.

    Texts are token ids (b, L) or embeddings (b, L, D); the padding does not change their fingerprints.
    """
    if image_ids is None:
        image_ids = fingerprints(pixel_values)
    if text_ids is None:
        texts = texts.detach()
        if attention_mask is not None:
            texts = texts * attention_mask.view(*attention_mask.shape, *[1] * (texts.dim() - 2)).to(texts.dtype)
        text_ids = fingerprints(texts)
    return image_ids, text_ids


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
