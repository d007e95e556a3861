"""Transformer layers of CB-ViLA.

Shapes: B batch, T query tokens, S key tokens, H heads, D hidden.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.cache_utils import EncoderDecoderCache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .activations_cbvila import activation


def eager_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Computes attention with matrix products, as the reference for the other back ends, and returns its weights.

    Args:
        module: The attention module; dropout applies while it is in training mode.
        query: (B, H, T, D/H).
        key: (B, H, S, D/H).
        value: (B, H, S, D/H).
        attention_mask: (B or 1, 1, T or 1, S), added to the scores.
        scaling: Factor of the scores.
        dropout: Dropout probability of the weights.
        kwargs: Options of other back ends, which are ignored.

    Returns:
        The outputs (B, T, H, D/H) and the weights (B, H, T, S).
    """
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(-1, dtype=torch.promote_types(query.dtype, torch.float32)).to(query.dtype)
    mixed = torch.matmul(nn.functional.dropout(weights, p=dropout, training=module.training), value)
    return mixed.transpose(1, 2).contiguous(), weights


class CBViLAAttention(nn.Module):
    """Multi-head attention with its projections; subclasses choose the states of keys and values."""

    def __init__(
        self, config: PreTrainedConfig, key_value_size: int, bias: bool, is_causal: bool, layer_idx: int
    ) -> None:
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_probs_dropout_prob
        self.is_causal = is_causal  # read by the sdpa back end, which is causal without it
        self.layer_idx = layer_idx
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=bias)
        self.k_proj = nn.Linear(key_value_size, config.hidden_size, bias=bias)
        self.v_proj = nn.Linear(key_value_size, config.hidden_size, bias=bias)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def split_heads(self, x: Tensor) -> Tensor:
        """Reshapes (B, T, D) to (B, H, T, D/H)."""
        return x.view(*x.shape[:-1], -1, self.head_dim).transpose(1, 2)

    def keys_values(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Projects states (B, S, key_value_size) to keys and values (B, H, S, D/H)."""
        return self.split_heads(self.k_proj(states)), self.split_heads(self.v_proj(states))

    def attend(
        self, hidden_states: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Attends from states (B, T, D) to keys and values (B, H, S, D/H).

        Returns the output (B, T, D) and, if the back end has them, the weights (B, H, T, S).
        """
        mixed, weights = self.mix(self.split_heads(self.q_proj(hidden_states)), key, value, mask, **kwargs)
        return self.o_proj(mixed), weights

    def mix(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Attends from queries (B, H, T, D/H) to values (B, H, S, D/H), without the output projection.

        Returns the weighted values (B, T, D) and, if the back end has them, the weights (B, H, T, S).
        """
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
    """Self-attention; in the answer decoder causal, with a cache."""

    def __init__(
        self, config: PreTrainedConfig, bias: bool = True, is_causal: bool = False, layer_idx: int = 0
    ) -> None:
        super().__init__(config, config.hidden_size, bias, is_causal, layer_idx)

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor | None = None,
        layer_past: EncoderDecoderCache | None = None,
        num_queries: int | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Attends from all tokens (B, T, D), or only the first `num_queries`, to all tokens."""
        key, value = self.keys_values(hidden_states)
        if layer_past is not None:
            key, value = layer_past.self_attention_cache.update(key, value, self.layer_idx)
        return self.attend(hidden_states[:, :num_queries], key, value, mask, **kwargs)


class CBViLACrossAttention(CBViLAAttention):
    """Attention of one modality to the other, or of an answer to the fused question."""

    def __init__(self, config: PreTrainedConfig, key_value_size: int, layer_idx: int = 0) -> None:
        super().__init__(config, key_value_size, bias=True, is_causal=False, layer_idx=layer_idx)

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None,
        mask: Tensor | None = None,
        encoder_index: Tensor | None = None,
        layer_past: EncoderDecoderCache | None = None,
        encoder_keys_values: tuple[Tensor, Tensor] | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Attends from states (B, T, D) to those of the encoder (B', S, key_value_size).

        `encoder_index` (B,) is the row of `encoder_hidden_states` for each row of queries. The projections, most of
        the cost, then run once per image, for any number of texts. `encoder_keys_values` are the results of
        `keys_values`, to use the projections in several passes.
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

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.activation = activation(config.hidden_act)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Maps states (B, T, D) to (B, T, D)."""
        return self.fc2(self.activation(self.fc1(hidden_states)))


class CBViLAVisionLayer(GradientCheckpointingLayer):
    """A pre-norm layer of the image encoder."""

    def __init__(self, config: PreTrainedConfig, layer_idx: int) -> None:
        super().__init__()
        self.attention = CBViLASelfAttention(config, bias=config.qkv_bias, layer_idx=layer_idx)
        self.layernorm_before = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layernorm_after = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = CBViLAMLP(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: Tensor, mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Maps states (B, T, D) to (B, T, D)."""
        attended, _ = self.attention(self.layernorm_before(hidden_states), mask, **kwargs)
        hidden_states = hidden_states + self.dropout(attended)
        return hidden_states + self.dropout(self.mlp(self.layernorm_after(hidden_states)))


class CBViLATextLayer(GradientCheckpointingLayer):
    """A post-norm layer as in BERT; with `key_value_size` it has cross-attention."""

    def __init__(
        self, config: PreTrainedConfig, layer_idx: int, is_causal: bool = False, key_value_size: int | None = None
    ) -> None:
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
        **kwargs: Any,
    ) -> Tensor:
        """Returns states (B, T, D), or (B, `num_queries`, D); those of the other tokens are never computed."""
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
