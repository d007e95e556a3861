"""Activation functions by name."""

from difflib import get_close_matches

from torch import nn
from transformers.activations import ACT2FN

from .messages_cbvila import shown


def activation(name: str) -> nn.Module:
    """Returns the activation function that `hidden_act` names.

    Raises:
        ValueError: If transformers has no activation of this name.
    """
    if name not in ACT2FN:
        nearest = get_close_matches(str(name), list(ACT2FN), n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else f"; choose one of {', '.join(ACT2FN)}."
        raise ValueError(f"hidden_act={shown(name)} is no activation of transformers{hint}")
    return ACT2FN[name]
