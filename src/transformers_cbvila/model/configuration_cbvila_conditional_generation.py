"""The configuration of [`CBViLAForConditionalGeneration`]: an image encoder, a projector and a language model."""

import os
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig, configuration_utils

from .configuration_checks_cbvila import check_spelling, check_sub_config
from .encoder_configurations_cbvila import CBViLAVisionConfig
from .messages_cbvila import shown
from .nested_options_cbvila import quantizer_options
from .projector_cbvila import CBViLAProjector
from .projectors_cbvila import PROJECTORS, projector_options
from .remote_code_cbvila import saved_with_its_code

DEFAULT_LANGUAGE_MODEL_TYPE = "llama"

# transformers 5.20 needs specifications; later versions also take classes, and earlier ones neither.
_specification = getattr(configuration_utils, "SubConfigSpec", lambda config_class, **_: config_class)


@saved_with_its_code
@strict
class CBViLAConditionalGenerationConfig(PreTrainedConfig):
    r"""Configuration of a language model that reads images.

    Args:
        vision_config (`dict` or [`CBViLAVisionConfig`], *optional*): The image encoder.
        text_config (`dict` or config, *optional*): The language model, any causal one of transformers. A dictionary
            names its `model_type`.
        projector_config (`dict`, *optional*): The projector and its options, such as
            `{"type": "prefix", "length": 2}`; see [`CBViLAPrefixProjectorOptions`].
        quantizer_config (`dict`, *optional*): The quantizer, as in a [`CBViLAConfig`], for a projector that reads
            quantized tokens.
        language_model (`str`, *optional*): Folder or Hub id of the language model, whose weights are kept outside the
            checkpoint.
        language_model_adapter (`str`, *optional*): Folder of the checkpoint with an adapter (PEFT) of the language
            model.
        image_token_id (`int`, *optional*): Token that stands for an image in `input_ids`, k times; by default the
            first one outside the language model's vocabulary.
        freeze_vision_tower (`bool`, defaults to `False`): Whether training leaves the image encoder as it is.
        initializer_range (`float`, defaults to 0.02): Standard deviation of the initial weights.

    Example:
    ```python
    >>> from transformers_cbvila import CBViLAConditionalGenerationConfig

    >>> language = {"model_type": "llama", "vocab_size": 1000, "hidden_size": 64}
    >>> config = CBViLAConditionalGenerationConfig(text_config=language, projector_config={"length": 4})
    >>> config.num_image_tokens, config.image_token_id
    (4, 1000)

    ```
    """

    model_type = "cbvila_conditional_generation"
    sub_configs_defaults = {
        "vision_config": _specification(CBViLAVisionConfig),
        "text_config": _specification(AutoConfig, model_type=DEFAULT_LANGUAGE_MODEL_TYPE),
    }
    sub_configs = {"vision_config": CBViLAVisionConfig, "text_config": AutoConfig}  # the name up to transformers 5.19
    keys_to_ignore_at_inference = ["past_key_values", "cache", "image_hidden_states"]

    # Given as a dictionary or None, a configuration or options after __post_init__.
    vision_config: Any = None
    text_config: Any = None
    projector_config: Any = None
    quantizer_config: Any = None
    language_model: str | None = None
    language_model_adapter: str | None = None
    image_token_id: int | None = None
    freeze_vision_tower: bool = False
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        check_sub_config("vision_config", self.vision_config or {}, CBViLAVisionConfig)
        if isinstance(self.vision_config or {}, dict):
            self.vision_config = CBViLAVisionConfig(**(self.vision_config or {}))
        self.text_config = _language_config(self.text_config)
        if self.image_token_id is None:
            self.image_token_id = self.text_config.vocab_size
        check_spelling(kwargs, type(self))
        self.check()
        super().__post_init__(**kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "projector_config":
            before = self.__dict__.get(name)
            if before is not None and isinstance(value, Mapping) and value.get("type", before.type) == before.type:
                value = {**before.to_dict(), **value}
            value = projector_options(value)
        elif name == "quantizer_config" and value is not None:
            value = quantizer_options(value)
        super().__setattr__(name, value)

    def check(self) -> None:
        """Raises a ValueError for invalid values; models call it again, as fields may have been set since."""
        if not isinstance(self.vision_config, CBViLAVisionConfig):
            raise ValueError(f"vision_config is {shown(self.vision_config)}; expected a CBViLAVisionConfig.")
        self.vision_config.check()
        if not isinstance(self.text_config, PreTrainedConfig):
            raise ValueError(f"text_config is {shown(self.text_config)}; expected the configuration of a causal LM.")
        self.projector_config.check("projector_config")
        adapter = self.language_model_adapter
        if adapter is not None and (not adapter or os.path.basename(adapter) != adapter or adapter in (".", "..")):
            raise ValueError(f"language_model_adapter={shown(adapter)}; expected a folder's name, in the checkpoint.")
        if self.image_token_id is None or self.image_token_id < 0:
            raise ValueError(f"image_token_id={self.image_token_id} must be 0 or more.")
        if self.reads_words and self.quantizer_config is None:
            raise ValueError(
                f"projector_config={shown(self.projector_config.to_dict())} reads quantized tokens, which needs a "
                "quantizer_config; or other options."
            )

    @property
    def projector_class(self) -> type[CBViLAProjector]:
        """The class of the projector."""
        return PROJECTORS[self.projector_config.type]

    @property
    def num_image_tokens(self) -> int:
        """Number k of tokens that an image takes in `input_ids`."""
        return self.projector_class.num_tokens(self.projector_config)

    @property
    def reads_words(self) -> bool:
        """Whether the projector reads quantized tokens."""
        return self.projector_class.reads_words(self.projector_config)

    # Trainer sets `use_cache` of every configuration, False by default. Saved, it would disable the cache of trained
    # models.
    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a dictionary, without `use_cache` of the whole model and paths of its parts."""
        fields = {name: value for name, value in super().to_dict().items() if name != "use_cache"}
        fields["text_config"] = {k: v for k, v in fields["text_config"].items() if k != "_name_or_path"}
        quantizer = None if self.quantizer_config is None else self.quantizer_config.to_dict()
        return {**fields, "projector_config": self.projector_config.to_dict(), "quantizer_config": quantizer}


def _language_config(value: Any) -> PreTrainedConfig:
    """Returns the configuration of a language model, from its fields.

    Raises:
        ValueError: If it is of no type that transformers knows.
    """
    if isinstance(value, PreTrainedConfig):
        return deepcopy(value)  # a model sets the attention back end of all its configurations
    check_sub_config("text_config", value or {}, PreTrainedConfig)
    return AutoConfig.for_model(**{"model_type": DEFAULT_LANGUAGE_MODEL_TYPE, **(value or {})})


__all__ = ["CBViLAConditionalGenerationConfig"]
