"""Training with adapters (PEFT): the wrapped CB-ViLA model, and checks that an adapter's file will be complete."""

import re
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel
from transformers.trainer import ADAPTER_SAFE_WEIGHTS_NAME

from ..model.language_model_adapter_cbvila import set_adapter_weights
from ..model.messages_cbvila import shown
from .arguments import CBViLATrainingArguments

_COPY = re.compile(r"modules_to_save\.[^.]+\.")  # where PEFT puts what it trains whole
_OF_ADAPTER = re.compile(r"\.(original_module|base_layer)\.")  # where it puts what was there before


def base_model(model: Any) -> Any:
    """Returns the model that PEFT wrapped, or the model itself."""
    if isinstance(model, PreTrainedModel) or not hasattr(model, "peft_config"):
        return model
    # A mix of kinds of adapters (PeftMixedModel) has no such method.
    return model.get_base_model() if hasattr(model, "get_base_model") else model.base_model.model


def trained_module(module: Any) -> Any:
    """Returns the copy of a module that PEFT trains in its place (`modules_to_save`), or the module itself.

    PEFT's wrapper passes most attributes on, but methods of its own (`update`) hide those of a module.
    """
    return module.modules_to_save[module.active_adapters[0]] if _saves(module) else module


def quantizer_of(model: Any) -> Any:
    """Returns the quantizer of a CB-ViLA model, or the copy that PEFT trains; `None` if it has none."""
    whole: Any = getattr(model, "cbvila", None)  # a Q-Former has none
    return trained_module(whole.quantizer) if getattr(whole, "has_quantizer", False) else None


def ids_of_codes(model: Any) -> set[int]:
    """Returns the `id` of each parameter that is a code of the model."""
    quantizer = quantizer_of(model)
    return set() if quantizer is None else {id(parameter) for parameter in quantizer.code_parameters()}


def own_name(name: str) -> str:
    """Returns a parameter's name in the model itself, also where PEFT trains a copy of its module."""
    return _COPY.sub("", name)


def has_language_model_adapter(model: Any) -> bool:
    """Returns whether a model has an adapter of its language model, which checkpoints keep in a folder of its own."""
    return getattr(model.config, "language_model_adapter", None) is not None


def restore_language_model_adapter(model: Any, checkpoint: str | Path) -> None:
    """Gives the adapter of a model's language model the weights of a checkpoint of the same run.

    Raises:
        FileNotFoundError: If the checkpoint has none.
    """
    file = Path(checkpoint) / model.config.language_model_adapter / ADAPTER_SAFE_WEIGHTS_NAME
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is not there: {checkpoint} is of a run without an adapter of the language model. Leave lora out, "
            "or start a new run."
        )
    set_adapter_weights(model.require_causal_language_model(), load_file(file))


def check_adapters(wrapper: nn.Module, args: CBViLATrainingArguments) -> None:
    """Raises a ValueError if weights would stay at random, or an adapter's file would lack codes or heads of codes.

    All weights but the adapter's are frozen, also those that the checkpoint lacked, such as a new objective's, unless
    `modules_to_save` names their module. The file holds the adapter and the modules that are named; codes that are not
    moved by gradients are neither, unless the quantizer is named.

    Args:
        wrapper: The model as the trainer got it, wrapped or not.
        args: The training arguments.
    """
    model = base_model(wrapper)
    if model is wrapper and not getattr(model, "_hf_peft_config_loaded", False):
        return
    _check_kind(wrapper, model)
    _check_new_weights(model)
    quantizer = quantizer_of(model)
    if quantizer is None or not hasattr(model, "objectives"):
        return
    fits = _fits(args, quantizer)
    moves = fits or _update_reason(args, quantizer)
    if moves and not _saves(model.cbvila.quantizer):
        raise ValueError(
            f"The model is trained with adapters (PEFT), and its codes move ({moves}): an adapter's file would not "
            "hold them. Add 'quantizer' to modules_to_save of the adapter's configuration."
        )
    frozen = [
        f"objectives.{name}.head"
        for name, objective in model.objectives.items()
        for head in objective.code_weights()
        if not _saves(head)
    ]
    if fits and frozen:
        raise ValueError(
            f"The model is trained with adapters (PEFT), and its codes are fitted again ({fits}): a head with weights "
            f"for each code that is frozen cannot learn their indices. Add {', '.join(map(repr, frozen))} to "
            "modules_to_save of the adapter's configuration."
        )


def _check_kind(wrapper: nn.Module, model: Any) -> None:
    for name, config in getattr(wrapper, "peft_config", {}).items():
        kind = getattr(config, "task_type", None)
        if kind is not None or config.is_prompt_learning:
            raise ValueError(
                f"The adapter {name!r} is of task_type={getattr(kind, 'value', kind)} and peft_type="
                f"{getattr(config.peft_type, 'value', config.peft_type)}: PEFT would call {type(model).__name__} as "
                "a text model. Leave task_type out, and use an adapter of weights, such as LoraConfig."
            )


def _check_new_weights(model: Any) -> None:
    weights = {_OF_ADAPTER.sub(".", name): p for name, p in model.named_parameters() if not _COPY.search(name)}
    trained = {own_name(name) for name, p in model.named_parameters() if p.requires_grad}
    codes = ids_of_codes(model)
    frozen = [name for name, p in weights.items() if name in model.missing_weights - trained and id(p) not in codes]
    if frozen:
        parts = dict.fromkeys(".".join(n.split(".")[: 2 if n.startswith("objectives.") else 1]) for n in frozen)
        raise ValueError(
            f"The model is trained with adapters (PEFT), which freeze all else, and {len(frozen)} weights that its "
            f"checkpoint does not have would stay as they started, at random: {shown(frozen[0])} … Add "
            f"{', '.join(map(repr, parts))} to modules_to_save of the adapter's configuration."
        )


def _fits(args: CBViLATrainingArguments, quantizer: Any) -> str | None:
    """Returns the option by which k-means will fit the codes, if there is one."""
    if not quantizer.tables():
        return None
    if args.codebook_refit:
        return "codebook_refit"
    return "codebook_init" if args.codebook_init and (not quantizer.is_fitted or args.align_steps > 0) else None


def _update_reason(args: CBViLATrainingArguments, quantizer: Any) -> str | None:
    """Returns why codes change other than by an ordinary optimizer step, if they do."""
    if quantizer.can_restart:
        return "they are moving averages"
    return "alternate_updates" if args.alternate_updates else None


def _saves(module: Any) -> bool:
    return hasattr(module, "modules_to_save")
