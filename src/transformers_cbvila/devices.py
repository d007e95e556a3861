"""Where a model computes, if nobody says so."""

from typing import Any

import torch


def default_device() -> torch.device:
    """The accelerator if there is one, else the CPU, as transformers' pipelines choose."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return device or torch.device("cpu")


def placed(model: Any, device: str | int | torch.device | None = None) -> Any:
    """
    A model on a device.

    Args:
        model: The model; it is moved, and not copied.
        device: Without, the default one. A model that `device_map` has spread over devices then stays where it is, as
            does one that is on an accelerator already.

    Returns:
        The same model.
    """
    if device is not None:
        return model.to(device)
    is_placed = getattr(model, "hf_device_map", None) or model.device.type != "cpu"
    return model if is_placed else model.to(default_device())
