"""What momentum copies of a model say of its batch, and contrast with it (ALBEF, arXiv 2107.07651; not in the paper).

The copies and their queue are with whoever trains. A model only takes tensors of them, and gives them no gradient.

Shapes: b pairs at hand, B pairs of all processes (in training; else b), Q pairs of the queue, n pairs, C known
captions, E embedding width, V vocabulary.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .comparing_cbvila import gather_ids
from .gathering_cbvila import Processes
from .losses_cbvila import distilled, known_match_loss
from .negatives_cbvila import matches_between


class MomentumPairs(NamedTuple):
    """Pairs as momentum copies embed them.

    `image_embeds` and `text_embeds` (n, E) have length 1. `image_ids` (n,), `text_ids` (n,) and `known_text_ids`
    (n, C), padded with -1 (C may be 0), say what of them is known to match, see [`known_matches`].
    """

    image_embeds: Tensor
    text_embeds: Tensor
    image_ids: Tensor
    text_ids: Tensor
    known_text_ids: Tensor

    def padded(self, captions: int) -> "MomentumPairs":
        """The same with at least so many known captions per image."""
        missing = captions - self.known_text_ids.shape[1]
        return (
            self if missing <= 0 else self._replace(known_text_ids=F.pad(self.known_text_ids, (0, missing), value=-1))
        )

    def followed_by(self, others: "MomentumPairs") -> "MomentumPairs":
        """These pairs, then the others."""
        captions = max(self.known_text_ids.shape[1], others.known_text_ids.shape[1])
        both = zip(self.padded(captions), others.padded(captions), strict=True)
        return MomentumPairs(*(torch.cat(rows) for rows in both))

    def of_all(self, processes: Processes) -> "MomentumPairs":
        """The pairs of all processes, in the order of ranks."""
        width = self.image_embeds.shape[1]
        embeds = processes.gather(torch.cat([self.image_embeds, self.text_embeds], dim=1))
        image_ids, text_ids, known = gather_ids(processes, self.image_ids, self.text_ids, self.known_text_ids)
        known = text_ids.new_empty(text_ids.shape[0], 0) if known is None else known
        image_embeds, text_embeds = embeds.split(width, dim=1)
        return MomentumPairs(image_embeds, text_embeds, image_ids, text_ids, known)


class Momentum(NamedTuple):
    """What momentum copies say of a batch.

    `share` (ALBEF's α) is the weight of their opinion beside what is known, from 0 to 1. `pairs` are those that ITC
    compares with: the B of all processes, then a queue's; without, ITC is as ever. `mlm_logits` (masked tokens, V) are
    their predictions in the order of `mlm_labels != -100`; without, MLM is as ever.
    """

    share: float
    pairs: MomentumPairs | None = None
    mlm_logits: Tensor | None = None


def contrast_with_momentum(
    similarity: Callable[[Tensor, Tensor], Tensor],
    image_embeds: Tensor,
    text_embeds: Tensor,
    momentum: Momentum,
    first: int = 0,
) -> Tensor:
    """ITC with the pairs of momentum copies (ALBEF, Eq. 6), the mean of both directions over the pairs at hand.

    An image's targets are share · softmax(its copy's logits) + (1 - share) · (all texts known to be true of it, in
    equal parts), and so for texts. That is ALBEF in fine-tuning, where ids are known; in its pretraining only a pair's
    own image and text match, and what a queue still has of them are negatives. Without momentum, [`itc_loss`] leaves
    other known matches out of the sum; with as many of them as a queue holds, that would leave out much.

    Args:
        similarity: Logits of images (rows) and texts (columns); the temperature is the model's for both.
        image_embeds, text_embeds: (b, E) of length 1, the model's.
        momentum: With `pairs`, (B + Q).
        first: Place of the first pair at hand among them.

    Raises:
        ValueError: If there are fewer momentum pairs than pairs at hand.
    """
    keys, count = MomentumPairs(*(rows.detach() for rows in momentum.pairs)), image_embeds.shape[0]
    if keys.text_ids.shape[0] < first + count:
        raise ValueError(
            f"momentum has {keys.text_ids.shape[0]} pair(s); ITC needs those of the batch, {first + count}, and then "
            "the queue's."
        )
    own = MomentumPairs(*(rows.narrow(0, first, count) for rows in keys))
    taught_per_image = taught_per_text = None
    if momentum.share > 0:
        with torch.no_grad():
            taught_per_image = similarity(own.image_embeds, keys.text_embeds)
            taught_per_text = similarity(keys.image_embeds, own.text_embeds).T
    per_image = similarity(image_embeds, keys.text_embeds)
    per_text = similarity(keys.image_embeds, text_embeds).T
    of_images = known_match_loss(per_image, _matches(own, keys))
    of_texts = known_match_loss(per_text, _matches(keys, own).T)
    both = (
        distilled(of_images, per_image, taught_per_image, momentum.share),
        distilled(of_texts, per_text, taught_per_text, momentum.share),
    )
    return (both[0] + both[1]) / 2


def _matches(images: MomentumPairs, texts: MomentumPairs) -> Tensor:
    """Which texts (columns) are known to be true of which images (rows)."""
    return matches_between(images.image_ids, images.text_ids, images.known_text_ids, texts.image_ids, texts.text_ids)
