"""Configurations of the three encoders in a [`CBViLAConfig`]."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .configuration_checks_cbvila import check_encoder, check_model_type, check_spelling


@strict
class CBViLAVisionConfig(PreTrainedConfig):
    r"""Configuration of the image encoder, ViT-B/16 at 256 px by default (Sec. IV-C).

    Args:
        hidden_size (`int`, defaults to 768): Width of the encoder.
        num_hidden_layers (`int`, defaults to 12): Number of pre-norm transformer layers.
        num_attention_heads (`int`, defaults to 12): Attention heads per layer.
        intermediate_size (`int`, defaults to 3072): Width of the feed-forward part.
        hidden_act (`str`, defaults to `"gelu"`): Activation of the feed-forward part.
        image_size (`int`, defaults to 256): Side of the (square) input in pixels.
        patch_size (`int`, defaults to 16): Side of a patch in pixels.
        num_channels (`int`, defaults to 3): Channels of the input.
        qkv_bias (`bool`, defaults to `True`): Whether query, key and value projections have a bias.
        hidden_dropout_prob (`float`, defaults to 0.0): Dropout after each sub-layer.
        attention_probs_dropout_prob (`float`, defaults to 0.0): Dropout of attention weights.
        layer_norm_eps (`float`, defaults to 1e-6): As in the original ViT.
        initializer_range (`float`, defaults to 0.02): Standard deviation of the initial weights.
        position_embedding_init (`str`, defaults to `"normal"`): What position embeddings start from: random numbers,
            as in ViT and ALBEF, or `"sincos"`, sines and cosines of rows and columns, as in MAE. Random ones are
            small beside embedded patches, so that training from random weights takes long to learn where things are.
    """

    model_type = "cbvila_vision_model"
    base_config_key = "vision_config"

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    image_size: int = 256
    patch_size: int = 16
    num_channels: int = 3
    qkv_bias: bool = True
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    position_embedding_init: str = "normal"

    @property
    def num_patches(self) -> int:
        """Number of visual tokens N of an image of the configured size."""
        return (self.image_size // self.patch_size) ** 2

    def __post_init__(self, **kwargs: Any) -> None:
        check_model_type(kwargs, type(self))
        check_spelling(kwargs, type(self))
        self.check()
        super().__post_init__(**kwargs)

    def check(self) -> None:
        """Raises a ValueError for invalid values; models call it again, as fields may have been set since."""
        check_encoder(self)
        for name in ("patch_size", "image_size", "num_channels"):
            if getattr(self, name) < 1:
                raise ValueError(f"vision_config: {name}={getattr(self, name)} must be positive.")
        if self.position_embedding_init not in ("normal", "sincos"):
            raise ValueError(
                f"vision_config: position_embedding_init={self.position_embedding_init!r}; give 'normal' or 'sincos'."
            )
        if self.position_embedding_init == "sincos" and self.hidden_size % 4:
            raise ValueError(
                f"vision_config: hidden_size {self.hidden_size} is not a multiple of 4, which "
                "position_embedding_init='sincos' needs."
            )
        if self.image_size % self.patch_size:
            raise ValueError(
                f"vision_config: image_size {self.image_size} is not a multiple of patch_size {self.patch_size}; "
                f"choose for example image_size={max(1, self.image_size // self.patch_size) * self.patch_size}."
            )


@strict
class CBViLATextConfig(PreTrainedConfig):
    r"""Configuration of the text encoder, six layers of BERT-base by default (Sec. IV-C).

    The answer decoder of visual question answering uses the same class with `is_decoder=True`.

    Args:
        vocab_size (`int`, defaults to 30522): Number of WordPieces V.
        hidden_size (`int`, defaults to 768): Width D, shared with the fusion encoder.
        num_hidden_layers (`int`, defaults to 6): Number of post-norm transformer layers.
        num_attention_heads (`int`, defaults to 12): Attention heads per layer.
        intermediate_size (`int`, defaults to 3072): Width of the feed-forward part.
        hidden_act (`str`, defaults to `"gelu"`): Activation of the feed-forward part.
        hidden_dropout_prob (`float`, defaults to 0.1): Dropout after each sub-layer.
        attention_probs_dropout_prob (`float`, defaults to 0.1): Dropout of attention weights.
        max_position_embeddings (`int`, defaults to 512): Longest text in tokens.
        type_vocab_size (`int`, defaults to 2): Token types; only type 0 is used.
        layer_norm_eps (`float`, defaults to 1e-12): As in BERT.
        initializer_range (`float`, defaults to 0.02): Standard deviation of the initial weights.
        pad_token_id, bos_token_id, eos_token_id (`int`, default to 0, 101, 102): [PAD], [CLS], [SEP].
        is_decoder (`bool`, defaults to `False`): Causal attention and a key-value cache.
    """

    model_type = "cbvila_text_model"
    base_config_key = "text_config"

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 6
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    pad_token_id: int | None = 0
    bos_token_id: int | None = 101
    eos_token_id: int | list[int] | None = 102
    is_decoder: bool = False
    use_cache: bool = True
    tie_word_embeddings: bool = True

    @property
    def end_token_id(self) -> int | None:
        """Id of [SEP], which ends texts and answers: `eos_token_id`, or the first of several."""
        return self.eos_token_id[0] if isinstance(self.eos_token_id, list) else self.eos_token_id

    def __post_init__(self, **kwargs: Any) -> None:
        check_model_type(kwargs, type(self))
        check_spelling(kwargs, type(self))
        self.check()
        super().__post_init__(**kwargs)

    def check(self) -> None:
        """Raises a ValueError for invalid values; models call it again, as fields may have been set since."""
        check_encoder(self)
        for name in ("vocab_size", "max_position_embeddings", "type_vocab_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"text_config: {name}={getattr(self, name)} must be positive.")


@strict
class CBViLAFusionConfig(PreTrainedConfig):
    r"""Configuration of the fusion encoder: text layers with cross-attention (Sec. IV-C).

    In a [`CBViLAConfig`], sizes that are not given are taken from the text encoder, and `encoder_hidden_size` from the
    image encoder.

    Args:
        hidden_size (`int`, defaults to 768): Width D; must equal the text encoder's.
        encoder_hidden_size (`int`, defaults to 768): Width of cross-attention keys and values (the vision width).
        num_hidden_layers (`int`, defaults to 6): Number of layers.
        num_attention_heads, intermediate_size, hidden_act, hidden_dropout_prob, attention_probs_dropout_prob,
        layer_norm_eps, initializer_range: as in [`CBViLATextConfig`].
    """

    model_type = "cbvila_fusion_model"
    base_config_key = "multimodal_config"

    hidden_size: int = 768
    encoder_hidden_size: int = 768
    num_hidden_layers: int = 6
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        check_model_type(kwargs, type(self))
        check_spelling(kwargs, type(self))
        self.check()
        super().__post_init__(**kwargs)

    def check(self) -> None:
        """Raises a ValueError for invalid values; models call it again, as fields may have been set since."""
        check_encoder(self)
        if self.encoder_hidden_size < 1:
            raise ValueError(f"multimodal_config: encoder_hidden_size={self.encoder_hidden_size} must be positive.")


__all__ = ["CBViLAFusionConfig", "CBViLATextConfig", "CBViLAVisionConfig"]
