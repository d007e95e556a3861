"""Soft targets from a momentum encoder, and the contrastive loss with them (ALBEF, arXiv 2107.07651).

Not in the paper. The momentum encoder and its queue belong to the training code. The model only receives their outputs
as tensors, through which no gradient flows.

Shapes: b local pairs, B pairs of all processes in training (otherwise b), Q pairs of the queue, n pairs, C known
captions, E projection size, V vocabulary size.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .known_matches_cbvila import matches_between
from .losses_cbvila import distilled_loss, known_match_loss, soft_cross_entropy
from .pair_ids_cbvila import PairIds
from .soft_targets_cbvila import soft_targets


class MomentumPairs(NamedTuple):
    """Embeddings of pairs from a momentum encoder.

    Args:
        image_embeds: (n, E) image embeddings of unit length.
        text_embeds: (n, E) text embeddings of unit length.
        image_ids: (n,) ids of images, see [`known_matches`].
        text_ids: (n,) ids of texts.
        known_text_ids: (n, C) ids of the known captions of each image, padded with -1; C may be 0.
    """

    image_embeds: Tensor
    text_embeds: Tensor
    image_ids: Tensor
    text_ids: Tensor
    known_text_ids: Tensor

    def padded(self, captions: int) -> "MomentumPairs":
        """Pads `known_text_ids` to at least `captions` known captions per image."""
        missing = captions - self.known_text_ids.shape[1]
        return (
            self if missing <= 0 else self._replace(known_text_ids=F.pad(self.known_text_ids, (0, missing), value=-1))
        )

    def rows(self, first: int, count: int) -> "MomentumPairs":
        """Returns `count` pairs from `first` on."""
        return MomentumPairs(*(field.narrow(0, first, count) for field in self))

    def detached(self) -> "MomentumPairs":
        """Returns these pairs without a way for gradients."""
        return MomentumPairs(*(field.detach() for field in self))

    def followed_by(self, others: "MomentumPairs") -> "MomentumPairs":
        """Returns these pairs, followed by the others."""
        captions = max(self.known_text_ids.shape[1], others.known_text_ids.shape[1])
        both = zip(self.padded(captions), others.padded(captions), strict=True)
        return MomentumPairs(*(torch.cat(rows) for rows in both))

    @classmethod
    def of_batch(cls, ids: PairIds, image_embeds: Tensor, text_embeds: Tensor) -> "MomentumPairs":
        """Gathers the pairs (B) of all processes in rank order, given the local embeddings (b, E)."""
        known = ids.text_ids.new_empty(ids.text_ids.shape[0], 0) if ids.known_text_ids is None else ids.known_text_ids
        return cls(*ids.gather_embeds(image_embeds, text_embeds), ids.image_ids, ids.text_ids, known)


class MomentumTexts(NamedTuple):
    """Captions as a momentum encoder sees them.

    Args:
        states: (b, L, D) states of the local captions.
        word_embeddings: (V, D) embeddings of its vocabulary.
    """

    states: Tensor
    word_embeddings: Tensor


class MomentumTargets(NamedTuple):
    """Outputs of a momentum encoder for a batch, the source of soft targets for ITC and MLM.

    Args:
        alpha: Weight of the soft targets relative to the hard ones, from 0 to 1 (ALBEF's α).
        pairs: Embeddings that ITC compares with: the B pairs of all processes, then those of the queue. `None` leaves
            ITC unchanged.
        mlm_logits: (masked tokens, V) logits of the momentum encoder, in the order of `mlm_labels != -100`. `None`
            leaves MLM unchanged.
        ids: Ids of the batch's B pairs, so that the model need not hash and gather them again. `None` if they are not
            known yet.
        texts: The captions, as features for objectives that need them.
    """

    alpha: float
    pairs: MomentumPairs | None = None
    mlm_logits: Tensor | None = None
    ids: PairIds | None = None
    texts: MomentumTexts | None = None


def momentum_itc_loss(*args: Any, **kwargs: Any) -> Tensor:
    """Computes the mean of both directions of [`momentum_itc_losses`]."""
    of_images, of_texts = momentum_itc_losses(*args, **kwargs)
    return (of_images + of_texts) / 2


def momentum_itc_losses(
    similarity: Callable[[Tensor, Tensor], Tensor],
    image_embeds: Tensor,
    text_embeds: Tensor,
    momentum: MomentumTargets,
    first: int = 0,
    target_temperature: float | None = None,
    known: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Computes the contrastive loss of images and of texts with pairs of a momentum encoder (ALBEF, Eq. 6).

    The targets of an image are alpha · softmax(teacher logits) + (1 - alpha) · (uniform over all texts known to match
    it), and likewise for texts. ALBEF does so in fine-tuning, where ids are known; in its pretraining only the two
    parts of a pair match, and their earlier embeddings in the queue count as negatives. Without momentum,
    [`itc_loss`] leaves other known matches out of the sum; a queue holds too many of them for that.

    Args:
        similarity: Maps embeddings of images (rows) and texts (columns) to logits. Student and teacher share the
            model's temperature.
        image_embeds: (b, E) image embeddings of the model, of unit length.
        text_embeds: (b, E) text embeddings of the model, of unit length.
        momentum: Targets with `pairs` (B + Q of them).
        first: Index of the first local pair among them.
        target_temperature: Temperature of [`soft_targets`], which then take the place of the known matches; they are
            those of the momentum encoder's embeddings.
        known: The [`known_of_both`] of the local pairs, if the caller has them.

    Raises:
        ValueError: If there are fewer momentum pairs than local pairs.
    """
    own, keys = own_and_all(momentum, first, image_embeds.shape[0])
    teacher_per_image = teacher_per_text = None
    if momentum.alpha > 0:
        with torch.no_grad():
            teacher_per_image = similarity(own.image_embeds, keys.text_embeds)
            teacher_per_text = similarity(keys.image_embeds, own.text_embeds).T
    per_image = similarity(image_embeds, keys.text_embeds)
    per_text = similarity(keys.image_embeds, text_embeds).T
    if target_temperature is None:
        of_images, of_texts = known_of_both(own, keys) if known is None else known
        image_loss, text_loss = known_match_loss(per_image, of_images), known_match_loss(per_text, of_texts)
    else:
        targets = soft_targets(own[:2], keys[:2], target_temperature)
        image_loss, text_loss = soft_cross_entropy(per_image, targets), soft_cross_entropy(per_text, targets)
    image_loss = distilled_loss(image_loss, per_image, teacher_per_image, momentum.alpha)
    text_loss = distilled_loss(text_loss, per_text, teacher_per_text, momentum.alpha)
    return image_loss, text_loss


def own_and_all(momentum: MomentumTargets, first: int, count: int) -> tuple[MomentumPairs, MomentumPairs]:
    """Returns the momentum encoder's pairs of the `count` local ones, the first at index `first`, and all of them.

    Raises:
        ValueError: If there are fewer.
    """
    keys = momentum.pairs.detached()
    if keys.text_ids.shape[0] < first + count:
        raise ValueError(
            f"momentum has {keys.text_ids.shape[0]} pair(s); expected those of the batch, {first + count}, then "
            "those of the queue."
        )
    return keys.rows(first, count), keys


def known_of_both(own: MomentumPairs, others: MomentumPairs) -> tuple[Tensor, Tensor]:
    """Returns which of the other pairs' texts match the own images (b, n), and which of their images the own texts."""
    return _known_pairs(own, others), _known_pairs(others, own).T


def _known_pairs(images: MomentumPairs, texts: MomentumPairs) -> Tensor:
    """Returns which texts (columns) are known to match which images (rows)."""
    return matches_between(images.image_ids, images.text_ids, images.known_text_ids, texts.image_ids, texts.text_ids)
