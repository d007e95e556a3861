"""The base class of all CB-ViLA models: initialization and loading of checkpoints."""

import os
import re
from collections import Counter
from contextvars import ContextVar
from dataclasses import fields
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput, logging

from .configuration_cbvila import CBViLAConfig
from .messages_cbvila import shown
from .nested_options_cbvila import with_new_names
from .objectives_cbvila import OBJECTIVES
from .quantizers_cbvila import QUANTIZERS

logger = logging.get_logger(__name__)

Output = TypeVar("Output", bound=ModelOutput)

# Whether the caller of from_pretrained asks for missing and unexpected keys.
_wants_loading_info = ContextVar("wants_loading_info", default=False)

# Keys in checkpoints of whole models, of which an encoder loads its own and ignores the others.
PARTS_OF_A_MODEL = [
    r"^(cbvila\.)?(vision_model|text_model|fusion_model|codebook|quantizer|visual_queries)\.",
    r"^(cbvila\.)?(text_key_projection|vision_projection|text_projection)\.",
    r"^(cbvila\.)?(patch_mask_token|logit_scale)$",
    r"^(objectives|\w+_head|answer_decoder)\.",
]


def reorder_fields(output: Output) -> Output:
    """Returns a copy of an output with its fields in order of declaration instead of assignment."""
    instance: Any = output  # of a dataclass, which the base class ModelOutput is not; dynamo follows no other form
    return type(output)(**{field.name: getattr(output, field.name) for field in fields(instance)})


@cache
def keys_of_0_1() -> dict[str, str]:
    """Returns patterns of keys in checkpoints of version 0.1, with their replacements."""
    classes: tuple[Any, ...] = (*QUANTIZERS.values(), *OBJECTIVES.values())
    return {pattern: key for cls in classes for pattern, key in cls.keys_of_0_1.items()}


def _rename_keys_of_0_1(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
    """Renames keys of version 0.1 before `load_state_dict`, which resumed runs call."""
    if prefix:
        return
    for key in list(state_dict):
        for pattern, replacement in keys_of_0_1().items():
            if re.search(pattern, key):
                state_dict[re.sub(pattern, replacement, key)] = state_dict.pop(key)
                break


class CBViLAPreTrainedModel(PreTrainedModel):
    """Base class of all CB-ViLA models, which initializes and loads weights."""

    config: Any  # a CBViLAConfig, or the configuration of an encoder or the answer decoder
    config_class: Any = CBViLAConfig
    base_model_prefix = "cbvila"
    main_input_name = "pixel_values"
    input_modalities: Any = ("image", "text")
    supports_gradient_checkpointing = True
    # The losses are means over the batch: Trainer must divide them by the number of accumulation steps.
    accepts_loss_kwargs = False
    # Patterns of keys in checkpoints of other classes, with their replacements.
    _names_in_other_checkpoints: dict[str, str] = {}
    _no_split_modules = ["CBViLAVisionLayer", "CBViLATextLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    # Names of weights that the checkpoint of a loaded model lacked, and that started at random.
    missing_weights: frozenset[str] = frozenset()

    def __init__(self, config: Any) -> None:
        # Checked again: `from_pretrained` sets options of the caller after the configuration was created and checked.
        config.check()
        super().__init__(config)
        self.register_load_state_dict_pre_hook(_rename_keys_of_0_1)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, except those that always stay in fp32 (codebook and temperature)."""
        kept = [f".{name}." for name in self._keep_in_fp32_modules_strict or ()]
        dtypes = [(f".{name}.", p.dtype) for name, p in self.named_parameters() if p.is_floating_point()]
        return next((dtype for name, dtype in dtypes if not any(k in name for k in kept)), dtypes[0][1])

    def states_to_return(self, output_attentions: bool | None, output_hidden_states: bool | None) -> dict[str, Any]:
        """Returns the options for the fusion encoder's output; those not given are the configuration's."""
        given = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        return {name: getattr(self.config, name) if value is None else value for name, value in given.items()}

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike | None, *args: Any, **kwargs: Any
    ) -> Any:
        """Loads a model as [`~transformers.PreTrainedModel.from_pretrained`] does.

        Args:
            pretrained_model_name_or_path: A folder, or a repository of the Hub.
            args: Passed to the method of transformers.
            kwargs: Passed to the method of transformers: its options, or fields of the configuration.

        Raises:
            ValueError: If no weight of the checkpoint belongs to this model, so that all of them would be random
                (except with `output_loading_info=True`, whose result reports it).
        """
        if cls.config_class is CBViLAConfig:  # `fusion_config` is also an argument of transformers' method
            kwargs = with_new_names(kwargs)
        renamed = {**keys_of_0_1(), **cls._names_in_other_checkpoints}
        if renamed:
            kwargs["key_mapping"] = {**renamed, **(kwargs.get("key_mapping") or {})}
        wants_loading_info = _wants_loading_info.set(bool(kwargs.get("output_loading_info")))
        try:
            loaded: Any = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        finally:
            _wants_loading_info.reset(wants_loading_info)
        model = loaded[0] if kwargs.get("output_loading_info") else loaded
        # Names are only changed for loading: save_pretrained would otherwise restore the old ones.
        conversions = getattr(model, "_weight_conversions", None) or []
        model._weight_conversions = [
            c for c in conversions if not renamed.keys() & {*getattr(c, "source_patterns", ())}
        ]
        return loaded

    def _adjust_missing_and_unexpected_keys(self, loading_info: Any) -> None:
        """Refuses checkpoints of other models, and logs which weights of the checkpoint this model leaves out."""
        found = set(loading_info.unexpected_keys)
        if not _wants_loading_info.get() and found and not self.state_dict().keys() - set(loading_info.missing_keys):
            # Otherwise transformers would log them, even after the error.
            loading_info.missing_keys, loading_info.unexpected_keys = set(), set()
            raise ValueError(
                f"None of the {len(found)} tensors of this checkpoint ({shown(min(found))} …) belongs to a "
                f"{type(self).__name__}, so that all its weights would be random. Load the class that "
                "config.json names under architectures, or make a new model: "
                f"{type(self).__name__}(config)."
            )
        super()._adjust_missing_and_unexpected_keys(loading_info)
        self.missing_weights = frozenset(loading_info.missing_keys)
        left_out = sorted(found - set(loading_info.unexpected_keys))
        if left_out:
            names = (key.removeprefix("cbvila.").removeprefix("fusion_model.") for key in left_out)
            parts = Counter(".".join(name.split(".")[: 2 if name.startswith("objectives.") else 1]) for name in names)
            logger.info(
                "%s has no use for %s of this checkpoint: left out, as intended.",
                type(self).__name__,
                ", ".join(f"{part} ({count} tensor{'s' * (count > 1)})" for part, count in parts.items()),
            )

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # Modules with parameters or buffers of their own initialize them with transformers.initialization, which
        # skips loaded tensors.
        init_own_weights: Any = getattr(module, "init_own_weights", None)
        if init_own_weights is not None:
            init_own_weights(self.config.initializer_range)


__all__ = ["CBViLAPreTrainedModel"]
