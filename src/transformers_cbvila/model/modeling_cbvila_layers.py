"""Transformer layers of CB-ViLA and the base class of its models.

Shapes: B batch, T query tokens, S key tokens, H heads, D hidden.
"""

import re
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import fields
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import EncoderDecoderCache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import ModelOutput, logging

from .activations_cbvila import activation
from .configuration_cbvila import CBViLAConfig
from .messages_cbvila import shown
from .nested_options_cbvila import with_new_names
from .objectives_cbvila import OBJECTIVES
from .quantizers_cbvila import QUANTIZERS

logger = logging.get_logger(__name__)

Output = TypeVar("Output", bound=ModelOutput)

# Whether who is loading a model gets to know which of its weights are missing.
# Of from_pretrained, where a checkpoint is.
_OF_LOADING = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")
_wants_loading_info = ContextVar("wants_loading_info", default=False)

# What the keys of a whole model's checkpoint begin with; of these, one encoder has its own only.
PARTS_OF_A_MODEL = [
    r"^(cbvila\.)?(vision_model|text_model|fusion_model|codebook|quantizer|visual_queries)\.",
    r"^(cbvila\.)?(text_key_projection|vision_projection|text_projection)\.",
    r"^(cbvila\.)?(patch_mask_token|logit_scale)$",
    r"^(objectives|\w+_head|answer_decoder)\.",
]


def reorder_fields(output: Output) -> Output:
    """Returns a copy of an output whose fields are in the order of their declaration, not that of assignment."""
    return type(output)(**{field.name: getattr(output, field.name) for field in fields(output)})  # type: ignore[arg-type]


def eager_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[Tensor, Tensor]:
    """Attention written out, the reference of the other back ends and the only one that returns its weights.

    Args:
        query: (B, H, T, D/H); key and value: (B, H, S, D/H).
        attention_mask: (B or 1, 1, T or 1, S), added to the scores.

    Returns:
        The mixed values (B, T, H, D/H) and the weights (B, H, T, S).
    """
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(-1, dtype=torch.promote_types(query.dtype, torch.float32)).to(query.dtype)
    mixed = torch.matmul(nn.functional.dropout(weights, p=dropout, training=module.training), value)
    return mixed.transpose(1, 2).contiguous(), weights


class CBViLAAttention(nn.Module):
    """Projections around an attention function; what the keys and values come from is up to the subclass."""

    def __init__(self, config: PreTrainedConfig, key_value_size: int, bias: bool, is_causal: bool, layer_idx: int):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_probs_dropout_prob
        self.is_causal = is_causal  # read by the sdpa back end, which assumes causal when this is missing
        self.layer_idx = layer_idx
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=bias)
        self.k_proj = nn.Linear(key_value_size, config.hidden_size, bias=bias)
        self.v_proj = nn.Linear(key_value_size, config.hidden_size, bias=bias)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def split_heads(self, x: Tensor) -> Tensor:
        """(B, T, D) as (B, H, T, D/H)."""
        return x.view(*x.shape[:-1], -1, self.head_dim).transpose(1, 2)

    def keys_values(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, S, D/H) of states (B, S, key_value_size)."""
        return self.split_heads(self.k_proj(states)), self.split_heads(self.v_proj(states))

    def attend(self, hidden_states: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs):
        """Attends from hidden_states (B, T, D) to key and value (B, H, S, D/H); returns (B, T, D) and the weights."""
        mixed, weights = self.mix(self.split_heads(self.q_proj(hidden_states)), key, value, mask, **kwargs)
        return self.o_proj(mixed), weights

    def mix(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, **kwargs):
        """What queries (B, H, T, D/H) find among values (B, H, S, D/H): (B, T, D), and the weights."""
        attention_function: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention
        )
        mixed, weights = attention_function(
            self,
            query,
            key,
            value,
            mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return mixed.flatten(2).contiguous(), weights


class CBViLASelfAttention(CBViLAAttention):
    """Attention of a sequence to itself; causal, with a cache, in the answer decoder."""

    def __init__(self, config: PreTrainedConfig, bias: bool = True, is_causal: bool = False, layer_idx: int = 0):
        super().__init__(config, config.hidden_size, bias, is_causal, layer_idx)

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor | None = None,
        layer_past: EncoderDecoderCache | None = None,
        num_queries: int | None = None,
        **kwargs,
    ):
        """With `num_queries` only so many of the first tokens ask, still about all of them."""
        key, value = self.keys_values(hidden_states)
        if layer_past is not None:
            key, value = layer_past.self_attention_cache.update(key, value, self.layer_idx)
        return self.attend(hidden_states[:, :num_queries], key, value, mask, **kwargs)


class CBViLACrossAttention(CBViLAAttention):
    """Attention of one modality to the other, or of an answer to the fused question."""

    def __init__(self, config: PreTrainedConfig, key_value_size: int, layer_idx: int = 0):
        super().__init__(config, key_value_size, bias=True, is_causal=False, layer_idx=layer_idx)

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None,
        mask: Tensor | None = None,
        encoder_index: Tensor | None = None,
        layer_past: EncoderDecoderCache | None = None,
        encoder_keys_values: tuple[Tensor, Tensor] | None = None,
        **kwargs,
    ):
        """`encoder_index` (B,) names for each query row the row of `encoder_hidden_states` it attends to, so that the
        projections, the larger part of the cost, run once per image however many texts look at it. They run before
        this pass, for several, when it is given what `keys_values` made of these states.
        """
        if layer_past is not None and layer_past.is_updated.get(self.layer_idx):
            layer: Any = layer_past.cross_attention_cache.layers[self.layer_idx]
            return self.attend(hidden_states, layer.keys, layer.values, mask, **kwargs)
        key, value = encoder_keys_values or self.keys_values(encoder_hidden_states)
        if encoder_index is not None:
            key, value = key.index_select(0, encoder_index), value.index_select(0, encoder_index)
        if layer_past is not None:
            key, value = layer_past.cross_attention_cache.update(key, value, self.layer_idx)
            layer_past.is_updated[self.layer_idx] = True
        return self.attend(hidden_states, key, value, mask, **kwargs)


class CBViLAMLP(nn.Module):
    """The feed-forward part of a layer."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.activation = activation(config.hidden_act)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(hidden_states)))


class CBViLAVisionLayer(GradientCheckpointingLayer):
    """A pre-norm layer of the image encoder."""

    def __init__(self, config: PreTrainedConfig, layer_idx: int):
        super().__init__()
        self.attention = CBViLASelfAttention(config, bias=config.qkv_bias, layer_idx=layer_idx)
        self.layernorm_before = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layernorm_after = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = CBViLAMLP(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: Tensor, mask: Tensor | None = None, **kwargs) -> Tensor:
        attended, _ = self.attention(self.layernorm_before(hidden_states), mask, **kwargs)
        hidden_states = hidden_states + self.dropout(attended)
        return hidden_states + self.dropout(self.mlp(self.layernorm_after(hidden_states)))


class CBViLATextLayer(GradientCheckpointingLayer):
    """A post-norm layer as in BERT; with `key_value_size`, one that also attends to another sequence (fusion)."""

    def __init__(
        self, config: PreTrainedConfig, layer_idx: int, is_causal: bool = False, key_value_size: int | None = None
    ):
        super().__init__()
        size, eps = config.hidden_size, config.layer_norm_eps
        self.attention = CBViLASelfAttention(config, is_causal=is_causal, layer_idx=layer_idx)
        self.attention_layernorm = nn.LayerNorm(size, eps=eps)
        self.has_cross_attention = key_value_size is not None
        if key_value_size is not None:
            self.crossattention = CBViLACrossAttention(config, key_value_size, layer_idx)
            self.crossattention_layernorm = nn.LayerNorm(size, eps=eps)
        self.mlp = CBViLAMLP(config)
        self.output_layernorm = nn.LayerNorm(size, eps=eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_mask: Tensor | None = None,
        encoder_index: Tensor | None = None,
        layer_past: EncoderDecoderCache | None = None,
        encoder_keys_values: tuple[Tensor, Tensor] | None = None,
        num_queries: int | None = None,
        **kwargs,
    ) -> Tensor:
        """(B, T, D) to (B, T, D), or to (B, `num_queries`, D), the first of it: what nobody asks for costs nothing."""
        attended, _ = self.attention(hidden_states, mask, layer_past, num_queries, **kwargs)
        hidden_states = self.attention_layernorm(hidden_states[:, :num_queries] + self.dropout(attended))
        if self.has_cross_attention:
            attended, _ = self.crossattention(
                hidden_states,
                encoder_hidden_states,
                encoder_mask,
                encoder_index,
                layer_past,
                encoder_keys_values,
                **kwargs,
            )
            hidden_states = self.crossattention_layernorm(hidden_states + self.dropout(attended))
        return self.output_layernorm(hidden_states + self.dropout(self.mlp(hidden_states)))


@cache
def keys_of_0_1() -> dict[str, str]:
    """Patterns of keys in checkpoints of version 0.1, with what they are called now."""
    classes: tuple[Any, ...] = (*QUANTIZERS.values(), *OBJECTIVES.values())
    return {pattern: key for cls in classes for pattern, key in cls.keys_of_0_1.items()}


def _rename_keys_of_0_1(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *args) -> None:
    """Has `load_state_dict`, which resuming a run calls, take what version 0.1 has saved."""
    if prefix:
        return
    for key in list(state_dict):
        for pattern, replacement in keys_of_0_1().items():
            if re.search(pattern, key):
                state_dict[re.sub(pattern, replacement, key)] = state_dict.pop(key)
                break


class CBViLAPreTrainedModel(PreTrainedModel):
    """What all CB-ViLA models share: the configuration class, initialisation, loading and saving."""

    config: Any  # a CBViLAConfig; the encoders and the answer decoder have configurations of their own
    config_class: Any = CBViLAConfig
    base_model_prefix = "cbvila"
    main_input_name = "pixel_values"
    input_modalities: Any = ("image", "text")
    supports_gradient_checkpointing = True
    # The losses are means over the batch already: Trainer must divide by the accumulation steps.
    accepts_loss_kwargs = False
    # Patterns of keys in checkpoints of other classes, with what this one calls them.
    _names_in_other_checkpoints: dict[str, str] = {}
    _no_split_modules = ["CBViLAVisionLayer", "CBViLATextLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    def __init__(self, config: Any):
        # Again: `from_pretrained` sets what a caller overrides when the configuration is made, and checked, already.
        config.check()
        super().__init__(config)
        self.register_load_state_dict_pre_hook(_rename_keys_of_0_1)

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the weights, but for those that always stay in fp32 (codebook and temperature)."""
        kept = [f".{name}." for name in self._keep_in_fp32_modules_strict or ()]
        dtypes = [(f".{name}.", p.dtype) for name, p in self.named_parameters() if p.is_floating_point()]
        return next((dtype for name, dtype in dtypes if not any(k in name for k in kept)), dtypes[0][1])

    def states_to_return(self, output_attentions: bool | None, output_hidden_states: bool | None) -> dict[str, Any]:
        """Which states the fusion encoder is asked for; where a call does not say, the configuration does."""
        asked = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        return {name: getattr(self.config, name) if value is None else value for name, value in asked.items()}

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """As of [`~transformers.PreTrainedModel`].

        Raises:
            ValueError: If no weight of the checkpoint belongs to this model, which would be random altogether (unless
                `output_loading_info` is asked for, which says so).
        """
        if cls.config_class is CBViLAConfig:  # before transformers takes `fusion_config` for an argument of its own
            kwargs = with_new_names(kwargs)
        renamed = {**keys_of_0_1(), **cls._names_in_other_checkpoints}
        if renamed:
            kwargs["key_mapping"] = {**renamed, **(kwargs.get("key_mapping") or {})}
        asked = _wants_loading_info.set(bool(kwargs.get("output_loading_info")))
        try:
            loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        finally:
            _wants_loading_info.reset(asked)
        model = loaded[0] if kwargs.get("output_loading_info") else loaded
        # For loading only: save_pretrained would otherwise turn the names back.
        conversions = getattr(model, "_weight_conversions", None) or []
        model._weight_conversions = [
            c for c in conversions if not renamed.keys() & {*getattr(c, "source_patterns", ())}
        ]
        return loaded

    def _adjust_missing_and_unexpected_keys(self, loading_info: Any) -> None:
        """Refuses a checkpoint of something else; says, to whoever has logging at info, what this model leaves out."""
        there = set(loading_info.unexpected_keys)
        if not _wants_loading_info.get() and there and not self.state_dict().keys() - set(loading_info.missing_keys):
            loading_info.missing_keys, loading_info.unexpected_keys = set(), set()  # reported all the same
            raise ValueError(
                f"None of the {len(there)} tensors of this checkpoint ({shown(min(there))} …) belongs to a "
                f"{type(self).__name__}, so that all its weights would be random. Load the class that "
                "config.json names under architectures, or make a new model: "
                f"{type(self).__name__}(config)."
            )
        super()._adjust_missing_and_unexpected_keys(loading_info)
        left_out = sorted(there - set(loading_info.unexpected_keys))
        if left_out:
            names = (key.removeprefix("cbvila.").removeprefix("fusion_model.") for key in left_out)
            parts = Counter(re.match(r"(objectives\.)?[^.]*", name)[0] for name in names)  # type: ignore[index]
            logger.info(
                "%s has no use for %s of this checkpoint: left out, as intended.",
                type(self).__name__,
                ", ".join(f"{part} ({count} tensor{'s' * (count > 1)})" for part, count in parts.items()),
            )

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # Modules that hold parameters or buffers of their own say themselves how these start. (They use
        # transformers.initialization, which leaves alone whatever was loaded.)
        if hasattr(module, "init_own_weights"):
            module.init_own_weights(self.config.initializer_range)  # type: ignore[operator]


__all__ = ["CBViLAPreTrainedModel"]
