"""What FSDP2, which leaves each process a part of every parameter, asks of those who handle parameters."""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def scalars_as_vectors(model: nn.Module) -> list[str]:
    """Turns scalar parameters, which have no dimension to shard, into vectors of one element; returns their names.

    Everything computes with these as before. `scalars_again` undoes it in what is saved.
    """
    names = [name for name, parameter in model.named_parameters() if parameter.dim() == 0]
    for name in names:
        owner, _, own_name = name.rpartition(".")
        scalar = model.get_parameter(name)
        vector = nn.Parameter(scalar.detach().reshape(1), requires_grad=scalar.requires_grad)
        setattr(model.get_submodule(owner), own_name, vector)
    return names


def scalars_again(state_dict: dict[str, Tensor], names: list[str]) -> dict[str, Tensor]:
    """A state dict in which the named parameters are scalars, as every model that loads it has them."""
    return {name: tensor.reshape(()) if name in names else tensor for name, tensor in state_dict.items()}


def require_whole_weights(trainer, what: str) -> None:
    """Raises a ValueError for `what`, a sentence's subject and verb, where weights are sharded."""
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise ValueError(
            f"{what}, which sharded weights (FSDP, DeepSpeed) do not allow: leave it out, or train with plain data "
            "parallelism."
        )


def local_part(tensor: Tensor) -> Tensor:
    """What this process has of a tensor, without gradient: all of it, unless it is sharded."""
    return (tensor.to_local() if hasattr(tensor, "to_local") else tensor).detach()


@torch.no_grad()
def latents_of_sharded(model: PreTrainedModel, pixel_values: Tensor) -> Tensor:
    """Latents (B, N, C) of images (B, 3, H, W), in the mode that the model is in.

    Taken on the way of a forward pass (with captions that mean nothing): nowhere else are sharded weights whole.
    """
    latents: list[Tensor] = []
    codebook = model.get_submodule("cbvila.codebook")
    hook = codebook.register_forward_pre_hook(lambda book, inputs: latents.append(book.encode(*inputs)))
    try:
        captions = torch.ones(pixel_values.shape[0], 1, dtype=torch.long, device=pixel_values.device)
        model(pixel_values=pixel_values, input_ids=captions)
    finally:
        hook.remove()
    return latents[0]
