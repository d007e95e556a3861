"""The EMA teacher of MIM: targets from a moving average of the encoder drift more slowly than the encoder."""

import copy
from typing import Any

import torch
from torch import Tensor

from ..training_images import image_latents


class EMATeacher:
    """A moving average (EMA) of the vision encoder and of the codebook's input projection.

    It is kept outside the model: in checkpoints of a run, not in published weights. Codes are the codebook's own.

    Args:
        trainer: The trainer of the model.
        decay: Decay of the moving average: w ← decay · w + (1 - decay) · model's w.
    """

    def __init__(self, trainer, decay: float):
        self.trainer = trainer
        self.decay = decay
        self.parts = copy.deepcopy(self._followed()).requires_grad_(False).eval()

    def _followed(self) -> torch.nn.ModuleDict:
        model = self.trainer.unwrapped_model.cbvila
        return torch.nn.ModuleDict({"vision_model": model.vision_model, **model.quantizer.followed()})

    @torch.no_grad()
    def update(self) -> None:
        """Updates the average; call it once per optimiser step."""
        for own, followed in zip(self.parts.parameters(), self._followed().parameters(), strict=True):
            own.lerp_(followed, 1 - self.decay)

    @torch.no_grad()
    def indices(self, pixel_values: Tensor) -> Tensor:
        """Indices (B, N) of images (B, 3, H, W): the nearest codes to the averaged encoder's latents."""
        parts = self.parts
        latents = image_latents(self.trainer, pixel_values, parts["vision_model"], dict(parts.named_children()))
        return self.trainer.unwrapped_model.cbvila.quantizer.lookup(latents)

    def state_dict(self) -> dict[str, Any]:
        return self.parts.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.parts.load_state_dict(state)
