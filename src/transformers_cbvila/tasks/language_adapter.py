"""Low-rank adapters (LoRA) of the language model of a model that reads images, by PEFT."""

from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from ..extras import require
from ..model.messages_cbvila import listed, shown
from ..nearest import nearest

DEFAULT_RANK = 16


def add_lora(model: Any, rank: int | None, alpha: int | None, targets: list[str]) -> None:
    """Adds an adapter to the language model of a model, or makes the one that it has trainable.

    Args:
        model: A [`CBViLAForConditionalGeneration`].
        rank: Rank of the matrices that are learned.
        alpha: Their scale is `alpha / rank`; by default 2.
        targets: Names of linear layers, such as `q_proj`; without, all of the language model's layers.

    Raises:
        ImportError: If PEFT is not installed.
        ValueError: If there is no layer of such a name, or the model's adapter has other options.
    """
    peft = require("peft")
    if model.config.language_model_adapter is not None:
        if rank is not None or alpha is not None or targets:
            raise ValueError(
                "The checkpoint has an adapter of its language model already, which is trained on as it is: leave "
                "lora_rank, lora_alpha and lora_target out."
            )
        model.train_language_model_adapter()
        return
    rank = DEFAULT_RANK if rank is None else rank
    config = peft.LoraConfig(
        r=rank, lora_alpha=2 * rank if alpha is None else alpha, target_modules=_target_modules(model, targets)
    )
    model.add_language_model_adapter(config)


def _target_modules(model: Any, targets: list[str]) -> list[str]:
    """Returns the names of linear layers in the language model's blocks: those that are asked for, or all."""
    decoder = model.model.language_model
    linear = {
        name.rpartition(".")[2] for name, module in decoder.named_modules() if isinstance(module, nn.Linear | Conv1D)
    }
    for target in targets:
        if target not in linear:
            raise ValueError(
                f"lora_target={shown(target)} is no linear layer of the {type(decoder).__name__}; expected one of "
                f"{listed(sorted(linear))}{nearest(target, sorted(linear))}"
            )
    return targets or sorted(linear)
