"""Training with adapters (PEFT): the wrapped CB-ViLA model, and checks of what an adapter's file leaves out."""

import re
from typing import Any

from torch import nn
from transformers import PreTrainedModel

_COPY = re.compile(r"modules_to_save\.[^.]+\.")  # where PEFT puts what it trains whole


def base_model(model: nn.Module) -> Any:
    """The model that PEFT wrapped, or the model itself."""
    if isinstance(model, PreTrainedModel) or not hasattr(model, "peft_config"):
        return model
    # A mix of kinds of adapters (PeftMixedModel) has no such method.
    return model.get_base_model() if hasattr(model, "get_base_model") else model.base_model.model  # type: ignore


def trained_module(module: Any) -> Any:
    """The copy of a module that PEFT trains in its place (`modules_to_save`), or the module itself.

    PEFT's wrapper passes most attributes on, but methods of its own (`update`) hide those of a module.
    """
    return module.modules_to_save[module.active_adapters[0]] if _saves(module) else module


def own_name(name: str) -> str:
    """A parameter's name as the model itself gives it, where PEFT trains a copy of its module."""
    return _COPY.sub("", name)


def check_adapters(trainer, wrapper: nn.Module) -> None:
    """Raises a ValueError where a model's codes would be lost, or its heads left behind.

    An adapter's file holds the adapter and what `modules_to_save` names. Codes that move on their own are neither,
    unless the codebook is named.

    Args:
        trainer: Its trainer.
        wrapper: The model as the trainer got it, wrapped or not.
    """
    model = trainer.unwrapped_model
    if model is wrapper and not getattr(model, "_hf_peft_config_loaded", False):
        return
    _check_kind(wrapper, model)
    if not hasattr(model, "update_codebook"):
        return
    args, config = trainer.args, model.config
    fits = _fits(args, bool(model.cbvila.codebook.initialized))
    if (fits or config.codebook_update == "ema" or args.alternate_updates) and not _saves(model.cbvila.codebook):
        raise ValueError(
            f"The model is trained with adapters (PEFT), and its codes move ({fits or _update_reason(config)}): an "
            "adapter's file would not hold them. Add 'codebook' to modules_to_save of the adapter's configuration."
        )
    if fits and config.mim_head != "tied" and not _saves(model.mim_head):
        raise ValueError(
            f"The model is trained with adapters (PEFT), and its codes are fitted anew ({fits}): a linear MIM head "
            "that is frozen cannot learn their indices. Add 'mim_head' to modules_to_save of the adapter's "
            "configuration."
        )


def _check_kind(wrapper: nn.Module, model: Any) -> None:
    for name, config in getattr(wrapper, "peft_config", {}).items():
        kind = getattr(config, "task_type", None)
        if kind is not None or config.is_prompt_learning:
            raise ValueError(
                f"The adapter {name!r} is of task_type={getattr(kind, 'value', kind)} and peft_type="
                f"{getattr(config.peft_type, 'value', config.peft_type)}: PEFT would call {type(model).__name__} as "
                "a model of words alone. Leave task_type out, and use an adapter of weights, such as LoraConfig."
            )


def _fits(args: Any, initialized: bool) -> str | None:
    """The option by which k-means will place the codes, if one does."""
    if args.codebook_refit:
        return "codebook_refit"
    return "codebook_init" if args.codebook_init and (not initialized or args.align_steps > 0) else None


def _update_reason(config: Any) -> str:
    return "codebook_update='ema'" if config.codebook_update == "ema" else "alternate_updates"


def _saves(module: Any) -> bool:
    return hasattr(module, "modules_to_save")
