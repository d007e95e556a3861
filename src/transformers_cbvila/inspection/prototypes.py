"""What prototypes gather, if an objective has learned some: images and captions that they are nearest to.

Shapes: M images with a caption each, K prototypes, E embedding size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ..metrics.intervals import mean_with_interval
from ..model.losses_cbvila import similarities
from ..model.modeling_cbvila_pretraining import CBViLAForPreTraining
from ..model.objective_cbvila import CBViLAObjective
from ..model.processing_cbvila import CBViLAProcessor
from ..retrieval.encoding import GalleryEncoder


class Gathered(NamedTuple):
    """Cosine similarities with prototypes.

    Args:
        images: (M, K) fp32 of images.
        texts: (M, K) of their first captions.
    """

    images: np.ndarray
    texts: np.ndarray

    def nearest(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the prototype (M,) that each image, and that each caption, is most similar to."""
        return self.images.argmax(1), self.texts.argmax(1)

    def counts(self) -> np.ndarray:
        """Returns how many images and captions are nearest to each prototype, (K,)."""
        return np.bincount(np.concatenate(self.nearest()), minlength=self.images.shape[1])

    def metrics(self, seed: int = 0) -> dict[str, float]:
        """Returns how prototypes are used, and whether an image and its caption are nearest to the same one.

        Args:
            seed: Seed of the bootstrap interval.

        Returns:
            `prototype_usage`, the share of prototypes that any image or caption is nearest to; `prototype_perplexity`
            of their counts; `prototype_agreement`, the share of pairs whose image and caption are nearest to the same
            prototype, with `_low` and `_high` (95 % interval over pairs) and `_floor`: what pairs would have that are
            put together by chance.
        """
        of_images, of_texts = self.nearest()
        counts = self.counts()
        share = counts[counts > 0] / counts.sum()
        shares = [np.bincount(found, minlength=len(counts)) / len(found) for found in (of_images, of_texts)]
        return {
            "prototype_usage": float((counts > 0).mean()),
            "prototype_perplexity": float(np.exp(-(share * np.log(share)).sum())),
            **mean_with_interval("prototype_agreement", (of_images == of_texts).astype(float), seed),
            "prototype_agreement_floor": float(shares[0] @ shares[1]),
        }


def prototypes_of(model: CBViLAForPreTraining) -> Tensor | None:
    """Returns the prototypes (K, E) of the model's objectives; `None` if none of them has any."""
    for objective in model.objectives.values():
        assert isinstance(objective, CBViLAObjective)
        if (prototypes := objective.prototypes()) is not None:
            return prototypes
    return None


def gather(
    model: CBViLAForPreTraining,
    processor: CBViLAProcessor,
    rows: Sequence[dict[str, Any]],
    batch_size: int = 64,
    progress: bool = True,
) -> Gathered | None:
    """Compares images and captions with the prototypes.

    Args:
        model: The model.
        processor: Its processor.
        rows: M rows with `image` and `captions`, of which the first is used.
        batch_size: Rows at a time.
        progress: Whether to show progress bars.

    Returns:
        Their similarities; `None` if the model has no prototypes.

    Raises:
        ValueError: If there are no rows, or an image cannot be read.
    """
    prototypes = prototypes_of(model)
    if prototypes is None:
        return None
    found = []
    for kind, items in (("images", (row["image"] for row in rows)), ("texts", (row["captions"][0] for row in rows))):
        encoder = GalleryEncoder(model, processor, kind, batch_size=batch_size, progress=progress, keep_states=False)
        found.append(similarities(encoder.encode(items).embeds, prototypes.cpu()).numpy())
    return Gathered(*found)
