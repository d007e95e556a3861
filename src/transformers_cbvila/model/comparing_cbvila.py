"""What pretraining and retrieval do with a batch of pairs: compare all with all, contrast, and mismatch (Sec. III-C).

Shapes: b pairs at hand, B pairs of all processes (in training; else b), L text tokens, S visual tokens, D hidden, E
embedding width.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .gathering_cbvila import Processes
from .losses_cbvila import itc_loss
from .negatives_cbvila import choose_negatives, content_ids, known_matches


class Comparison(NamedTuple):
    """How alike the pairs at hand are to all pairs; their own places among these start at `first`.

    `per_image` (b, B) has images in rows and texts in columns, `per_text` (b, B) the reverse; `matches` and
    `text_matches` say what of it is known to be true.
    """

    per_image: Tensor
    matches: Tensor
    per_text: Tensor
    text_matches: Tensor
    first: int

    def contrast(self) -> Tensor:
        """ITC, with the mean over the pairs at hand."""
        return itc_loss(*self)

    def negatives(self, hardness: float | None, seed: int | Tensor | None) -> tuple[Tensor, Tensor]:
        """A wrong image for each text and a wrong text for each image, as [`choose_negatives`] chooses."""
        return choose_negatives(self.per_image, self.matches, hardness, *self[2:], seed=seed)


def compare(
    processes: Processes | None,
    similarity: Callable[[Tensor, Tensor], Tensor | None],
    image_embeds: Tensor,
    text_embeds: Tensor,
    image_ids: Tensor,
    text_ids: Tensor,
    known_text_ids: Tensor | None,
) -> Comparison:
    """Compares embeddings (b, E) of pairs with those of all processes.

    Args:
        processes: The others, if there are any.
        similarity: Logits of images (rows) and texts (columns), or `None` where they cannot be compared.
        image_ids, text_ids, known_text_ids: (b,), (b,) and (b, C), see [`known_matches`].
    """
    images, texts, first = image_embeds, text_embeds, 0
    if processes is not None:
        first, width = processes.first, image_embeds.shape[1]
        if image_embeds.shape[1] == text_embeds.shape[1]:  # one message for both
            images, texts = processes.gather(torch.cat([image_embeds, text_embeds], dim=1)).split(width, dim=1)
        image_ids, text_ids, known_text_ids = gather_ids(processes, image_ids, text_ids, known_text_ids)
    matches = known_matches(text_ids.shape[0], text_ids.device, image_ids, text_ids, known_text_ids)
    per_image = similarity(image_embeds, texts)
    if per_image is None:  # towers of different widths and nothing that makes them comparable
        per_image = torch.zeros_like(matches[: image_embeds.shape[0]], dtype=torch.float32)
        return _rows(per_image, matches, per_image, first)
    per_text = per_image.T if processes is None else similarity(images, text_embeds).T
    return _rows(per_image, matches, per_text, first)


def _rows(per_image: Tensor, matches: Tensor, per_text: Tensor, first: int) -> Comparison:
    """A comparison whose `matches` (B, B) are of all."""
    count = per_image.shape[0]
    own, transposed = matches.narrow(0, first, count), matches.T.narrow(0, first, count)
    return Comparison(per_image, own, per_text, transposed, first)


def gather_ids(processes: Processes, image_ids: Tensor, text_ids: Tensor, known_text_ids: Tensor | None):
    """The ids of all processes, as one message; rows with fewer known ids than others are padded with -1."""
    known = text_ids.new_full((text_ids.shape[0], processes.captions), -1)
    if known_text_ids is not None:
        known[:, : known_text_ids.shape[1]] = known_text_ids
    gathered = processes.gather(torch.cat([image_ids.unsqueeze(1), text_ids.unsqueeze(1), known], dim=1))
    return gathered[:, 0], gathered[:, 1], gathered[:, 2:] if processes.captions > 0 else None


def pair_ids(
    pixel_values: Tensor,
    words: Tensor,
    attention_mask: Tensor | None,
    image_ids: Tensor | None,
    text_ids: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Ids of images (b', 3, H, W) and of texts; where none are given, some that equal ones share despite padding.

    Texts are ids (b, L) or embeddings (b, L, D).
    """
    if image_ids is None:
        image_ids = content_ids(pixel_values)
    if text_ids is None:
        words = words.detach()
        if attention_mask is not None:
            words = words * attention_mask.view(*attention_mask.shape, *[1] * (words.dim() - 2)).to(words.dtype)
        text_ids = content_ids(words)
    return image_ids, text_ids


class Matching(NamedTuple):
    """What image-text matching asks the fusion encoder: true pairs, wrong images, wrong texts.

    `texts` (3b, L, D) with their mask (3b, L), and for each the row (3b,) of its image among `images` (b', S, Dv).
    """

    texts: Tensor
    mask: Tensor | None
    images: Tensor
    image_index: Tensor


def mismatch(
    processes: Processes | None,
    images: Tensor,
    own: Tensor,
    texts: Tensor,
    mask: Tensor | None,
    negatives: tuple[Tensor, Tensor],
) -> Matching:
    """Puts each text beside a wrong image and each image beside a wrong text.

    Args:
        processes: The others, if the negatives are places among all pairs and not among those at hand. What they have
            of it is fetched: never more than b images and b texts, however many processes there are.
        images: (b', S, Dv) visual tokens.
        own: (b,) the row of each text's image.
        texts, mask: (b, L, D) and (b, L).
        negatives: Image for each text and text for each image, (b,) each; -1 (none) is replaced by some.
    """
    wrong_image, wrong_text = (index.clamp_min(0) for index in negatives)
    if processes is None:
        wrong_own = own.index_select(0, wrong_image)
        wrong_texts = texts.index_select(0, wrong_text)
        wrong_mask = None if mask is None else mask.index_select(0, wrong_text)
    else:
        fetch_images, fetch_texts = processes.exchanges(wrong_image, wrong_text)
        if mask is None:  # the texts of another process may be of another length
            mask = torch.ones(texts.shape[:2], device=texts.device)
        texts, mask = processes.pad_texts(texts), processes.pad_texts(mask.long())
        wrong_texts, wrong_mask = fetch_texts(texts), fetch_texts(mask)
        wrong_own = torch.arange(own.shape[0], device=own.device) + images.shape[0]
        images = torch.cat([images, fetch_images(images, own)])
    return Matching(
        torch.cat([texts, texts, wrong_texts]),
        None if mask is None else torch.cat([mask, mask, wrong_mask]),
        images,
        torch.cat([own, wrong_own, own]),
    )
