"""Handling parameters that FSDP2 shards: each process holds a part of every parameter."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .context import TrainingContext


def scalars_as_vectors(model: nn.Module) -> list[str]:
    """Turns scalar parameters, which have no dimension to shard, into vectors of one element; returns their names.

    Computations do not change. `scalars_again` restores them in saved state dicts.
    """
    names = [name for name, parameter in model.named_parameters() if parameter.dim() == 0]
    for name in names:
        owner, _, own_name = name.rpartition(".")
        scalar = model.get_parameter(name)
        vector = nn.Parameter(scalar.detach().reshape(1), requires_grad=scalar.requires_grad)
        setattr(model.get_submodule(owner), own_name, vector)
    return names


def scalars_again(state_dict: dict[str, Tensor], names: list[str]) -> dict[str, Tensor]:
    """Returns a state dict in which the named parameters are scalars, as every model that loads it has them."""
    return {name: tensor.reshape(()) if name in names else tensor for name, tensor in state_dict.items()}


def require_whole_weights(context: TrainingContext, what: str) -> None:
    """Raises a ValueError if weights are sharded; `what`, such as "option=1 needs …", is its beginning."""
    if context.has_sharded_weights:
        raise ValueError(
            f"{what}, which sharded weights (FSDP, DeepSpeed) do not allow: leave it out, or train with plain data "
            "parallelism."
        )


@torch.no_grad()
def complete_optimizer_state(optimizer: torch.optim.Optimizer) -> None:
    """Gives trainable parameters that never had a gradient the optimizer state of their first step: zeros.

    The heads of MIM and MLM have no gradient before burn-in ends, and torch does not load checkpoints of sharded
    optimizers that are incomplete. A step ignores the state of a parameter without a gradient, so training does not
    change.

    Raises:
        ValueError: If the optimizer keeps anything but numbers, and tensors of their parameter's shape.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    stateless = [parameter for parameter in parameters if not optimizer.state.get(parameter)]
    pattern = next((p for p in parameters if optimizer.state.get(p)), None)
    if pattern is None:
        return
    for parameter in stateless:
        optimizer.state[parameter] = {
            name: _zeros_like(name, value, pattern, parameter) for name, value in optimizer.state[pattern].items()
        }


def _zeros_like(name: str, value: Any, pattern: Tensor, parameter: Tensor) -> Any:
    """Returns zeros like an optimizer's value for another parameter, the pattern."""
    if isinstance(value, (int, float)) or (isinstance(value, Tensor) and value.dim() == 0):
        return value * 0
    if isinstance(value, Tensor) and value.shape == pattern.shape:
        return torch.zeros_like(parameter, dtype=value.dtype)
    raise ValueError(
        f"The optimizer's {name!r} is not of its parameter's shape, and parameters without a gradient yet (MIM and "
        "MLM in burn-in) have none: such a state of sharded weights could not be loaded again. Use optim=adamw_torch, "
        "or a save_steps that writes no checkpoint before burn_in_steps."
    )


def local_part(tensor: Tensor) -> Tensor:
    """Returns the part of a tensor that this process holds, without gradient: the whole unless it is sharded."""
    return (tensor.to_local() if hasattr(tensor, "to_local") else tensor).detach()


@torch.no_grad()
def set_weight(parameter: nn.Parameter, values: Tensor) -> None:
    """Sets a parameter, sharded or not, to values that all processes have."""
    values, sharded = values.to(parameter.device, parameter.dtype), cast(Any, parameter)
    if hasattr(sharded, "device_mesh"):
        from torch.distributed.tensor import distribute_tensor

        values = distribute_tensor(values, sharded.device_mesh, sharded.placements)
    parameter.copy_(values)


@torch.no_grad()
def latents_of_sharded(model: PreTrainedModel, pixel_values: Tensor) -> Tensor:
    """Returns the latents (B, N, C) of images (B, 3, H, W), in the mode that the model is in.

    They are recorded during a forward pass (with dummy captions), as sharded weights are whole nowhere else.
    """
    latents: list[Tensor] = []
    quantizer = model.get_submodule("cbvila.quantizer")
    hook = quantizer.register_forward_pre_hook(lambda module, inputs: latents.append(module.encode(*inputs)))
    try:
        captions = torch.ones(pixel_values.shape[0], 1, dtype=torch.long, device=pixel_values.device)
        model(pixel_values=pixel_values, input_ids=captions)
    finally:
        hook.remove()
    return latents[0]
