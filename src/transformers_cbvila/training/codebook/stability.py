"""Code stability: how many indices of fixed images stay the same while encoder and codes learn.

Indices are the targets of MIM. If they change faster than MIM learns, its loss stays above the entropy of the codes.

Shapes: B images of the probe, N visual tokens.
"""

from typing import Any

import torch
from torch import Tensor

from ...model.quantizer_output_cbvila import CBViLAQuantizerHints
from ..context import TrainingContext
from ..training_images import TrainingImages, image_batches, image_latents


class CodeStability:
    """The share of indices of a fixed batch of training images that are the same as `window` steps before.

    The images are one view each, drawn once; they and the past indices are saved in checkpoints, so that a resumed
    run measures the same as an uninterrupted one.

    Args:
        context: The context of the run.
        images: Number of images.
        window: Steps between the indices that are compared.

    Attributes:
        stability: The latest measurement in [0, 1]; None before the first.
        is_settled: Whether it spans the whole window; until then it is since the start, or since the codes were
            fitted.
    """

    def __init__(self, context: TrainingContext, images: int, window: int) -> None:
        self.context = context
        self.images = images
        self.window = window
        self.reset()

    def reset(self) -> None:
        """Clears images and measurements."""
        self.pixel_values: Tensor | None = None
        self.token_classes: Tensor | None = None
        self.forget()

    def forget(self) -> None:
        """Clears measurements: after k-means an index stands for another code."""
        self.history: list[tuple[int, Tensor]] = []  # (step, indices (B, N)), oldest first
        self.stability: float | None = None
        self.is_settled = False

    def measure(self, step: int) -> None:
        """Compares the indices at a step with those `window` steps before, or the oldest available."""
        if self.images < 1:
            return
        if self.pixel_values is None:
            self.pixel_values, self.token_classes = self._first_images()
        latents = image_latents(self.context, self.pixel_values)
        classes = None if self.token_classes is None else self.token_classes.to(latents.device)
        indices = self.context.model.cbvila.quantizer.lookup(latents, CBViLAQuantizerHints.of(classes))
        while len(self.history) > 1 and self.history[1][0] <= step - self.window:
            self.history.pop(0)
        if self.history:
            then, before = self.history[0]
            same = (indices == before.to(indices)).double().mean()
            # Processes that decide by it must not differ by a rounding of their encoders.
            self.stability = float(self.context.accelerator.reduce(same.float(), reduction="mean"))
            self.is_settled = step - then >= self.window
        self.history.append((step, indices.to(torch.int32)))

    def _first_images(self) -> TrainingImages:
        images, classes = list[Tensor](), list[Tensor]()
        for batch in image_batches(self.context, self.context.args.seed):
            images += batch.pixel_values.unbind()
            classes += [] if batch.token_classes is None else batch.token_classes.unbind()
            if len(images) >= self.images:
                break
        of_patches = torch.stack(classes[: self.images]) if classes else None
        return TrainingImages(torch.stack(images[: self.images]), of_patches)

    def state_dict(self) -> dict[str, Any]:
        """Returns images and measurements."""
        return {
            "pixel_values": self.pixel_values,
            "token_classes": self.token_classes,
            "history": list(self.history),
            "stability": self.stability,
            "is_settled": self.is_settled,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores images and measurements."""
        self.pixel_values, self.token_classes = state["pixel_values"], state.get("token_classes")
        self.history = list(state["history"])
        self.stability, self.is_settled = state["stability"], state["is_settled"]
