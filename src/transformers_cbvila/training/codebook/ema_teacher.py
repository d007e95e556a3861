"""The EMA teacher of MIM: targets from a moving average of the encoder drift more slowly than the encoder."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ...model.quantizer_output_cbvila import CBViLAQuantizerHints
from ..context import TrainingContext
from ..moving_average import MovingAverage
from ..training_images import image_latents


class EMATeacher:
    """A moving average of the image encoder and of the codebook's input projection; codes are the model's own.

    Args:
        context: The context of the run.
        decay: Decay of the moving average.
    """

    def __init__(self, context: TrainingContext, decay: float) -> None:
        self.context = context
        self.average = MovingAverage(copy.deepcopy(self._followed()), decay)

    @property
    def parts(self) -> nn.Module:
        """The averaged modules: `vision_model`, and those of the quantizer by their own names."""
        return self.average.module

    def _followed(self) -> nn.ModuleDict:
        model = self.context.model.cbvila
        return nn.ModuleDict({"vision_model": model.vision_model, **model.quantizer.followed()})

    def update(self) -> None:
        """Updates the average; call it once per optimizer step."""
        self.average.update(self._followed())

    @torch.no_grad()
    def indices(self, pixel_values: Tensor, hints: CBViLAQuantizerHints | None = None) -> Tensor:
        """Returns the code indices (B, N) of the averaged encoder's latents of images (B, 3, H, W)."""
        modules = dict(self.parts.named_children())
        latents = image_latents(self.context, pixel_values, modules["vision_model"], modules)
        return self.context.model.cbvila.quantizer.lookup(latents, hints)

    def state_dict(self) -> dict[str, Any]:
        """Returns the averaged weights by name."""
        return self.average.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Loads averaged weights."""
        self.average.load_state_dict(state)
