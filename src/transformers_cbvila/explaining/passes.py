"""Runs a model so that its attention can be explained, and leaves it as it was."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch


@contextmanager
def explainable(model: Any) -> Iterator[Any]:
    """Yields a model in evaluation mode that returns its attention weights, with gradients down to them.

    Weights of other precisions than fp32 are explained in a copy. The model has its modes and its attention back end
    back afterwards, also after an error. Autocast is off. Other threads must not use the model meanwhile.

    Args:
        model: A model with a fusion encoder (`cbvila.fusion_model`).
    """
    if any(weight.dtype != torch.float32 for weight in model.parameters() if weight.is_floating_point()):
        model = deepcopy(model).float()
    fusion, modes = model.cbvila.fusion_model, {module: module.training for module in model.modules()}
    back_end = fusion.config._attn_implementation
    # Gradients begin at what the fusion encoder reads, so that its attention has some when all weights are frozen.
    hook = fusion.register_forward_pre_hook(_detach_inputs, with_kwargs=True)
    try:
        model.eval()
        # Only "eager" returns attention weights. The towers keep their back end.
        fusion.set_attn_implementation("eager")
        device = next(model.parameters()).device.type
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device, enabled=False):
            yield model
    finally:
        hook.remove()
        fusion.set_attn_implementation(back_end)
        for module, was_training in modes.items():
            module.training = was_training


def _detach_inputs(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
    """Replaces states that the fusion encoder reads by leaves of the graph."""
    states, *others = args
    images = kwargs["encoder_hidden_states"].detach()
    return (states.detach().requires_grad_(), *others), {**kwargs, "encoder_hidden_states": images}
