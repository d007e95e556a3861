"""Moving averages (EMA) of modules during training, kept outside the model and its published weights."""

from collections.abc import Collection
from typing import Any

import torch
from torch import nn


class MovingAverage:
    """A frozen copy of a module, in evaluation mode, whose weights follow the module's at a distance.

    Args:
        module: A copy of the module that is followed, or of a part of it.
        decay: Decay of the moving average: w ← decay · w + (1 - decay) · followed w.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = module.requires_grad_(False).eval()
        self.decay = decay

    @torch.no_grad()
    def update(self, followed: nn.Module, copied: Collection[int] = ()) -> None:
        """Moves the average towards a module by one step.

        Args:
            followed: A module with at least the parameters and buffers of the average. Buffers are copied.
            copied: `id` of each parameter of `followed` that is copied as well.
        """
        for name, own in self.module.named_parameters():
            source = followed.get_parameter(name)
            if id(source) in copied:
                own.copy_(source)
            else:
                own.lerp_(source, 1 - self.decay)
        for name, buffer in self.module.named_buffers():
            buffer.copy_(followed.get_buffer(name))

    def state_dict(self) -> dict[str, Any]:
        """Returns the averaged weights by name."""
        return self.module.state_dict()

    def load_state_dict(self, state: dict[str, Any], strict: bool = True) -> None:
        """Loads averaged weights; unless `strict`, those that are missing stay as they are."""
        self.module.load_state_dict(state, strict=strict)
