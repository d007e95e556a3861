"""Chooses the device of a model."""

from typing import Any

import torch


def default_device() -> torch.device:
    """Returns the accelerator if there is one, else the CPU, as transformers' pipelines choose."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return device or torch.device("cpu")


def placed(model: Any, device: str | int | torch.device | None = None) -> Any:
    """Moves a model to a device.

    Args:
        model: The model, which is not copied.
        device: The device; [`default_device`] if not given, unless the model is on an accelerator already or
            `device_map` has placed it.

    Returns:
        The same model.
    """
    if device is not None:
        return model.to(device)
    is_placed = getattr(model, "hf_device_map", None) or model.device.type != "cpu"
    return model if is_placed else model.to(default_device())
