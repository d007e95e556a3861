"""Which parameters share a learning rate and a weight decay."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import nn

# Part of the names of each tower's parameters, in every CB-ViLA model.
TOWERS = {"vision": "vision_model.", "text": "text_model.", "codebook": "quantizer."}


def parameter_groups(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    decayed: Collection[str],
    weight_decay: float,
    tower_learning_rates: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Returns groups for an optimizer: the rest of the model, then each tower with its own learning rate.

    Each is two groups, with and without weight decay; empty ones are left out. The order depends on the names alone,
    so that an optimizer's saved state fits when a run is resumed. The rest comes first, as the learning rate in the
    logs is that of the first group.

    Args:
        named_parameters: Parameters of the model by name.
        decayed: Names of the parameters with weight decay.
        weight_decay: Their weight decay.
        tower_learning_rates: Learning rate by key of `TOWERS`.
    """
    decayed = set(decayed)
    members: dict[tuple[str, bool], list[nn.Parameter]] = {
        (tower, decay): [] for tower in ("rest", *TOWERS) for decay in (True, False)
    }
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            tower = next((tower for tower in tower_learning_rates if TOWERS[tower] in name), "rest")
            members[tower, name in decayed].append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": weight_decay if decay else 0.0,
            **({"lr": tower_learning_rates[tower]} if tower in tower_learning_rates else {}),
        }
        for (tower, decay), parameters in members.items()
        if parameters
    ]
