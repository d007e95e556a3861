"""Which parameters share a learning rate and a weight decay."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from torch import nn

# Parts of the names of each tower's parameters, in every CB-ViLA model.
TOWERS = {"vision": ("vision_model.", "vision_tower."), "text": ("text_model.",), "codebook": ("quantizer.",)}
_IN_LAYERS = ".layers."  # part of the names of the parameters of transformer layers, in every CB-ViLA model

NamedParameters = Iterable[tuple[str, nn.Parameter]]


def groups_by_tower(
    named_parameters: NamedParameters,
    decayed: Collection[str],
    weight_decay: float,
    tower_learning_rates: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Returns groups for an optimizer: the rest of the model, then each tower with its own learning rate.

    Args:
        named_parameters: Parameters of the model by name.
        decayed: Names of the parameters with weight decay.
        weight_decay: Their weight decay.
        tower_learning_rates: Learning rate by key of `TOWERS`.
    """

    def kind_of(name: str, parameter: nn.Parameter) -> str:
        return _tower_of(name, tower_learning_rates) or "rest"

    order: dict[str, dict[str, Any]] = {"rest": {}, **_of_towers(tower_learning_rates)}
    return _groups(named_parameters, decayed, weight_decay, kind_of, order)


def groups_for_muon(
    named_parameters: NamedParameters,
    decayed: Collection[str],
    weight_decay: float,
    muon_learning_rate: float,
    tower_learning_rates: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Returns groups for [`MuonWithAdamW`]: AdamW's, then the weight matrices of transformer layers for Muon.

    Args:
        named_parameters: Parameters of the model by name.
        decayed: Names of the parameters with weight decay.
        weight_decay: Their weight decay.
        muon_learning_rate: Learning rate of Muon.
        tower_learning_rates: Learning rate by key of `TOWERS`, of those that learn by AdamW alone.
    """

    def kind_of(name: str, parameter: nn.Parameter) -> str:
        if tower := _tower_of(name, tower_learning_rates):
            return tower
        return "muon" if _IN_LAYERS in name and parameter.dim() == 2 else "rest"

    adamw: dict[str, dict[str, Any]] = {"rest": {}, **_of_towers(tower_learning_rates)}
    order = {kind: {"muon": False, **options} for kind, options in adamw.items()}
    order["muon"] = {"muon": True, "lr": muon_learning_rate}
    return _groups(named_parameters, decayed, weight_decay, kind_of, order)


def _tower_of(name: str, learning_rates: Mapping[str, float]) -> str | None:
    """Returns the tower that a parameter belongs to, if it has a learning rate of its own."""
    return next((tower for tower in learning_rates if any(part in name for part in TOWERS[tower])), None)


def _of_towers(learning_rates: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    return {tower: {"lr": learning_rates[tower]} for tower in TOWERS if tower in learning_rates}


def _groups(
    named_parameters: NamedParameters,
    decayed: Collection[str],
    weight_decay: float,
    kind_of: Callable[[str, nn.Parameter], str],
    options: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Returns the groups of each kind, in the order of `options`, which has what a kind's groups say.

    Each kind is two groups, with and without weight decay; empty ones are left out. The order depends on the names
    alone, so that an optimizer's saved state fits when a run is resumed. The rest comes first, as the learning rate in
    the logs is that of the first group.
    """
    decayed = set(decayed)
    members: dict[tuple[str, bool], list[nn.Parameter]] = {
        (kind, decay): [] for kind in options for decay in (True, False)
    }
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            members[kind_of(name, parameter), name in decayed].append(parameter)
    return [
        {"params": parameters, "weight_decay": weight_decay if decay else 0.0, **options[kind]}
        for (kind, decay), parameters in members.items()
        if parameters
    ]
