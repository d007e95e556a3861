"""The configuration of BLIP-2's Q-Former (arXiv 2301.12597)."""

from math import isfinite
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig, configuration_utils

from .configuration_checks_cbvila import check_encoder, check_model_type, check_spelling, check_sub_config
from .encoder_configurations_cbvila import CBViLAVisionConfig
from .messages_cbvila import shown
from .remote_code_cbvila import saved_with_its_code

# transformers 5.20 needs specifications; later versions also take classes, and earlier ones neither.
_specification = getattr(configuration_utils, "SubConfigSpec", lambda config_class: config_class)
_POSITIVE = (
    "vocab_size",
    "max_position_embeddings",
    "num_query_tokens",
    "cross_attention_frequency",
    "projection_dim",
)
_OF_PROJECTOR = (
    "num_query_tokens",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "layer_norm_eps",
    "initializer_range",
    "cross_attention_frequency",
)


@saved_with_its_code
@strict
class CBViLAQFormerConfig(PreTrainedConfig):
    r"""Configuration of a Q-Former. The defaults are the sizes of BLIP-2's, which are those of BERT-base.

    Args:
        vision_config (`dict` or [`CBViLAVisionConfig`], *optional*): The image encoder, which stays frozen.
        vocab_size (`int`, defaults to 30523): Number of tokens V, [DEC] among them.
        hidden_size (`int`, defaults to 768): Width D.
        num_hidden_layers (`int`, defaults to 12): Number of post-norm transformer layers.
        num_attention_heads (`int`, defaults to 12): Attention heads per layer.
        intermediate_size (`int`, defaults to 3072): Width of both feed-forward parts.
        hidden_act (`str`, defaults to `"gelu"`): Activation of the feed-forward parts.
        hidden_dropout_prob (`float`, defaults to 0.1): Dropout after each sub-layer.
        attention_probs_dropout_prob (`float`, defaults to 0.1): Dropout of attention weights.
        max_position_embeddings (`int`, defaults to 512): Longest text in tokens.
        layer_norm_eps (`float`, defaults to 1e-12): As in BERT.
        initializer_range (`float`, defaults to 0.02): Standard deviation of the initial weights, also of the queries.
        num_query_tokens (`int`, defaults to 32): Number of learned queries.
        cross_attention_frequency (`int`, defaults to 2): Queries attend to the image in every layer whose number,
            counted from 0, is a multiple of it.
        projection_dim (`int`, defaults to 256): Width E of the contrastive embeddings.
        logit_scale_init_value (`float`, defaults to 2.6592): Logarithm of the initial 1 / temperature (ln 1/0.07).
        label_smoothing (`float`, defaults to 0.1): Part of the contrastive targets that is uniform over the batch.
        pad_token_id, bos_token_id, eos_token_id (`int`, default to 0, 101, 102): [PAD], [CLS], [SEP].
        dec_token_id (`int`, *optional*, defaults to 30522): [DEC], which takes the place of a text's first token where
            the text is to be generated. `None` keeps the first token, [CLS].

    Example:
    ```python
    >>> from transformers_cbvila import CBViLAQFormerConfig

    >>> config = CBViLAQFormerConfig(vision_config={"hidden_size": 128, "num_attention_heads": 4}, hidden_size=384)
    >>> config.vision_config.hidden_size, config.num_query_tokens
    (128, 32)

    ```
    """

    model_type = "cbvila_qformer"
    base_config_key = "qformer_config"
    sub_configs_defaults = {"vision_config": _specification(CBViLAVisionConfig)}
    sub_configs = {"vision_config": CBViLAVisionConfig}  # the name up to transformers 5.19
    keys_to_ignore_at_inference = ["losses", "caption_logits"]

    vision_config: Any = None  # given as a dictionary or None, a configuration after __post_init__
    vocab_size: int = 30523
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    max_position_embeddings: int = 512
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    num_query_tokens: int = 32
    cross_attention_frequency: int = 2
    projection_dim: int = 256
    logit_scale_init_value: float = 2.6592
    label_smoothing: float | int = 0.1
    pad_token_id: int | None = 0
    bos_token_id: int | None = 101
    eos_token_id: int | list[int] | None = 102
    dec_token_id: int | None = 30522
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        check_model_type(kwargs, type(self))
        check_spelling(kwargs, type(self))
        if self.vision_config is None:
            self.vision_config = CBViLAVisionConfig()
        check_sub_config("vision_config", self.vision_config, CBViLAVisionConfig)
        if isinstance(self.vision_config, dict):
            self.vision_config = CBViLAVisionConfig(**self.vision_config)
        self.check()
        super().__post_init__(**kwargs)

    def check(self) -> None:
        """Raises a ValueError for invalid values; models call it again, as fields may have been set since."""
        if not isinstance(self.vision_config, CBViLAVisionConfig):
            raise ValueError(f"vision_config is {shown(self.vision_config)}; expected a CBViLAVisionConfig.")
        self.vision_config.check()
        check_encoder(self)
        for name in _POSITIVE:
            if getattr(self, name) < 1:
                raise ValueError(f"{self.base_config_key}: {name}={getattr(self, name)} must be positive.")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"{self.base_config_key}: label_smoothing={self.label_smoothing} must be in [0, 1).")
        if not isfinite(self.logit_scale_init_value):
            raise ValueError(
                f"{self.base_config_key}: logit_scale_init_value={self.logit_scale_init_value} must be finite."
            )
        if self.dec_token_id is not None and not 0 <= self.dec_token_id < self.vocab_size:
            raise ValueError(
                f"{self.base_config_key}: dec_token_id={self.dec_token_id} is none of the {self.vocab_size} tokens of "
                "vocab_size. [DEC] needs a row of its own there, such as the last one; None begins with [CLS]."
            )

    def projector_config(self) -> dict[str, Any]:
        """Returns the `projector_config` of a [`CBViLAConditionalGenerationConfig`] that starts from this Q-Former."""
        return {"type": "qformer", **{name: getattr(self, name) for name in _OF_PROJECTOR}}

    def has_cross_attention(self, layer: int) -> bool:
        """Returns whether queries attend to the image in a layer, counted from 0."""
        return layer % self.cross_attention_frequency == 0


__all__ = ["CBViLAQFormerConfig"]
