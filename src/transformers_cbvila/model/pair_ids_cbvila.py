"""Ids of the pairs of all processes, by which equal images and equal texts are known to match.

Shapes: b local pairs, B pairs of all processes in training (otherwise b), C known captions, E projection size.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .distributed_cbvila import Processes
from .known_matches_cbvila import fingerprints, known_matches


class PairIds(NamedTuple):
    """Ids of the pairs of all processes, and the processes that have them.

    Args:
        image_ids: (B,) int, see [`known_matches`].
        text_ids: (B,) int.
        known_text_ids: (B, C) int, padded with -1; `None` if no captions are known but those of the pairs.
        processes: The processes that have these pairs; `None` for the local batch alone.
    """

    image_ids: Tensor
    text_ids: Tensor
    known_text_ids: Tensor | None = None
    processes: Processes | None = None

    @property
    def first(self) -> int:
        """Index of the first local pair."""
        return 0 if self.processes is None else self.processes.first

    @property
    def num_local(self) -> int:
        """Number of local pairs."""
        return self.text_ids.shape[0] if self.processes is None else self.processes.pairs[self.processes.rank]

    def matches(self) -> Tensor:
        """Returns which texts (columns) are known to match which images (rows), as (B, B) bool."""
        ids = self.image_ids, self.text_ids, self.known_text_ids
        return known_matches(self.text_ids.shape[0], self.text_ids.device, *ids)

    def gather_embeds(self, image_embeds: Tensor, text_embeds: Tensor) -> tuple[Tensor, Tensor]:
        """Gathers embeddings (b, E) of images and texts as (B, E) with a single collective."""
        if self.processes is None:
            return image_embeds, text_embeds
        both = self.processes.gather(torch.cat([image_embeds, text_embeds], dim=1))
        images, texts = both.split(image_embeds.shape[1], dim=1)
        return images, texts


def gather_pair_ids(
    training: bool,
    pixel_values: Tensor,
    texts: Tensor,
    attention_mask: Tensor | None = None,
    image_ids: Tensor | None = None,
    text_ids: Tensor | None = None,
    known_text_ids: Tensor | None = None,
    image_index: Tensor | None = None,
) -> PairIds:
    """Exchanges the ids of pairs across ranks, in training; outside training, they are those of the local batch.

    Ids that are not given are fingerprints of the contents, which equal images or texts share.

    Args:
        training: Whether the model is in training mode.
        pixel_values: (b', 3, H, W) images.
        texts: Token ids (b, L) or embeddings (b, L, D); padding does not change their fingerprints.
        attention_mask: (b, L), 0 on padding.
        image_ids: (b',) int.
        text_ids: (b,) int.
        known_text_ids: (b', C) int.
        image_index: (b,) row of the image that belongs to each text; by default the same row.
    """
    image_ids = fingerprints(pixel_values) if image_ids is None else image_ids
    text_ids = _text_fingerprints(texts, attention_mask) if text_ids is None else text_ids
    if image_index is not None:
        image_ids = image_ids.index_select(0, image_index)
        known_text_ids = None if known_text_ids is None else known_text_ids.index_select(0, image_index)
    processes = Processes.gather_sizes(training, texts, known_text_ids)
    if processes is None:
        return PairIds(image_ids, text_ids, known_text_ids)
    known = text_ids.new_full((text_ids.shape[0], processes.captions), -1)
    if known_text_ids is not None:
        known[:, : known_text_ids.shape[1]] = known_text_ids
    gathered = processes.gather(torch.cat([image_ids.unsqueeze(1), text_ids.unsqueeze(1), known], dim=1))
    return PairIds(gathered[:, 0], gathered[:, 1], gathered[:, 2:] if processes.captions > 0 else None, processes)


def _text_fingerprints(texts: Tensor, attention_mask: Tensor | None) -> Tensor:
    texts = texts.detach()
    if attention_mask is not None:
        texts = texts * attention_mask.view(*attention_mask.shape, *[1] * (texts.dim() - 2)).to(texts.dtype)
    return fingerprints(texts)
