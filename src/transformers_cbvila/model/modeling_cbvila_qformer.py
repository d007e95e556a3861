"""BLIP-2's Q-Former (arXiv 2301.12597): learned queries that read an image, with a text beside them if there is one.

Shapes: B rows, B' images, Q queries, L text tokens, T = Q + L, S image tokens, D hidden, Dv vision width.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions
from transformers.processing_utils import Unpack
from transformers.utils.generic import TransformersKwargs, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .arguments_cbvila import takes_no_other_arguments
from .configuration_cbvila_qformer import CBViLAQFormerConfig
from .label_checks_cbvila import INDEX, check_ids
from .modeling_cbvila_base import CBViLAPreTrainedModel
from .modeling_cbvila_layers import CBViLACrossAttention, CBViLAMLP, CBViLASelfAttention
from .modeling_cbvila_text import num_embeddings
from .qformer_masks_cbvila import AttentionPattern, additive_mask, qformer_mask

# Keys of a stage-1 checkpoint that the Q-Former alone leaves out.
_OF_STAGE_1 = [r"^vision_model\.", r"^(vision|text)_projection\.", r"^(matching|lm)_head\.", r"^logit_scale$"]
# Keys of a Q-Former that has no text.
TEXT_ONLY = [r"embeddings\.(word|position)_embeddings\.", r"layers\.\d+\.(mlp|output_layernorm)\."]

_TEXT_PART_OF_QUERY_PART = {"query_mlp": "mlp", "query_layernorm": "output_layernorm"}


class CBViLAQFormerEmbeddings(nn.Module):
    """The queries, and embeddings of words and their positions; all of them pass the same layer norm.

    Args:
        config: The configuration.
        add_text: Whether there are embeddings of words.
    """

    def __init__(self, config: CBViLAQFormerConfig, add_text: bool = True) -> None:
        super().__init__()
        self.config, self.has_text = config, add_text
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_query_tokens, config.hidden_size))
        if add_text:
            self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
            self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def init_own_weights(self, std: float) -> None:
        """Initializes the queries; [DEC] starts as a copy of [CLS], whose place it takes."""
        init.normal_(self.query_tokens, std=std)
        start, first = self.config.dec_token_id, self.config.bos_token_id
        if self.has_text and start is not None and first in range(self.config.vocab_size):
            rows = self.word_embeddings.weight.detach().clone()
            rows[start] = rows[first]
            init.copy_(self.word_embeddings.weight, rows)

    def forward(self, text: Tensor | None, position_ids: Tensor | None, num_rows: int | None) -> Tensor:
        """Returns embeddings (B, T, D) of queries, then text.

        Args:
            text: (B, L) token ids or (B, L, D) embeddings; `None` for queries alone.
            position_ids: (B, L); counted from 0 when absent.
            num_rows: B where there are queries; `None` for text alone.
        """
        parts = [] if num_rows is None else [self.query_tokens.expand(num_rows, -1, -1)]
        if text is not None:
            parts.append(self._embed_text(text, position_ids))
        return self.dropout(self.layernorm(torch.cat(parts, dim=1)))

    def _embed_text(self, text: Tensor, position_ids: Tensor | None) -> Tensor:
        if not self.has_text:
            raise ValueError("This Q-Former was built without text: pass encoder_hidden_states alone.")
        length, limit = text.shape[1], num_embeddings(self.position_embeddings)
        if isinstance(length, int) and not 1 <= length <= limit:  # symbolic in torch.export
            raise ValueError(
                f"The text has {length} tokens; the model takes 1 to {limit} (max_position_embeddings). Let the "
                f"tokenizer cut it: truncation=True, max_length={limit}."
            )
        if text.dim() == 2:
            vocabulary = num_embeddings(self.word_embeddings)
            rule = f"the vocabulary has {vocabulary} tokens; is the tokenizer that of the model?"
            check_ids("input_ids", text, tuple(text.shape), vocabulary, rule, self, False, INDEX)
            text = self.word_embeddings(text)
        if position_ids is None:
            position_ids = torch.arange(length, device=text.device).unsqueeze(0)
        return text + self.position_embeddings(position_ids)


class CBViLAQFormerLayer(GradientCheckpointingLayer):
    """A post-norm layer in which queries and text share self-attention; queries also attend to the image.

    Args:
        config: The configuration.
        layer_idx: Its number, from 0.
        add_text: Whether it has a feed-forward part for text.
    """

    def __init__(self, config: CBViLAQFormerConfig, layer_idx: int, add_text: bool = True) -> None:
        super().__init__()
        size, eps = config.hidden_size, config.layer_norm_eps
        self.attention = CBViLASelfAttention(config, layer_idx=layer_idx)
        self.attention_layernorm = nn.LayerNorm(size, eps=eps)
        self.has_cross_attention = config.has_cross_attention(layer_idx)
        if self.has_cross_attention:
            self.crossattention = CBViLACrossAttention(config, config.vision_config.hidden_size, layer_idx)
            self.crossattention_layernorm = nn.LayerNorm(size, eps=eps)
        self.query_mlp = CBViLAMLP(config)
        self.query_layernorm = nn.LayerNorm(size, eps=eps)
        self.has_text = add_text
        if add_text:
            self.mlp = CBViLAMLP(config)
            self.output_layernorm = nn.LayerNorm(size, eps=eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    @torch.no_grad()
    def start_queries_from_text(self) -> None:
        """Copies the feed-forward part of text to that of queries."""
        for queries, text in _TEXT_PART_OF_QUERY_PART.items():
            getattr(self, queries).load_state_dict(getattr(self, text).state_dict())

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor | None,
        num_queries: int,
        encoder_hidden_states: Tensor | None = None,
        encoder_index: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Maps states (B, T, D), of which the first `num_queries` are queries, to (B, T, D)."""
        attended, _ = self.attention(hidden_states, mask, **kwargs)
        hidden_states = self.attention_layernorm(hidden_states + self.dropout(attended))
        queries, text = hidden_states[:, :num_queries], hidden_states[:, num_queries:]
        parts = []
        if num_queries:
            if self.has_cross_attention:
                attended, _ = self.crossattention(
                    queries, encoder_hidden_states, encoder_index=encoder_index, **kwargs
                )
                queries = self.crossattention_layernorm(queries + self.dropout(attended))
            parts.append(self.query_layernorm(queries + self.dropout(self.query_mlp(queries))))
        if text.shape[1]:
            parts.append(self.output_layernorm(text + self.dropout(self.mlp(text))))
        return torch.cat(parts, dim=1)


class CBViLAQFormerModel(CBViLAPreTrainedModel):
    """The Q-Former without heads and without the image encoder whose tokens it reads.

    Args:
        config: The configuration.
        add_text: Whether to build what only text passes: its embeddings and feed-forward parts.

    Example:
    ```python
    >>> import torch
    >>> from transformers_cbvila import CBViLAQFormerConfig, CBViLAQFormerModel

    >>> small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    >>> model = CBViLAQFormerModel(CBViLAQFormerConfig(vision_config=small, **small, num_query_tokens=4))
    >>> image, text = torch.randn(1, 17, 32), torch.tensor([[101, 7, 102]])
    >>> model(encoder_hidden_states=image).last_hidden_state.shape
    torch.Size([1, 4, 32])
    >>> model(text, encoder_hidden_states=image).last_hidden_state.shape
    torch.Size([1, 7, 32])

    ```
    """

    config_class = CBViLAQFormerConfig
    base_model_prefix = "qformer"
    main_input_name = "input_ids"
    _input_embed_layer = "word_embeddings"
    _keys_to_ignore_on_load_unexpected = [*_OF_STAGE_1, *TEXT_ONLY]
    _no_split_modules = ["CBViLAQFormerLayer"]
    # These back ends have no mask of any shape.
    _supports_flash_attn = False
    _supports_flex_attn = False
    _can_record_outputs = {
        "hidden_states": CBViLAQFormerLayer,
        "attentions": CBViLASelfAttention,
        "cross_attentions": CBViLACrossAttention,
    }

    def __init__(self, config: CBViLAQFormerConfig, add_text: bool = True) -> None:
        super().__init__(config)
        self.embeddings = CBViLAQFormerEmbeddings(config, add_text)
        self.layers = nn.ModuleList(CBViLAQFormerLayer(config, i, add_text) for i in range(config.num_hidden_layers))
        self.post_init()

    def init_weights(self) -> None:
        """Initializes the weights; the feed-forward parts of queries start as copies of those of text."""
        super().init_weights()
        layers: Any = self.layers
        for layer in layers:
            if layer.has_text:
                layer.start_queries_from_text()

    def tie_weights(self, missing_keys: set[str] | None = None, recompute_mapping: bool = True) -> None:
        """Ties nothing, and starts queries from text in layers that a checkpoint has no feed-forward part of."""
        # `from_pretrained` calls this after loading and before it reports missing keys.
        if missing_keys:
            missing_keys -= self.start_missing_queries(missing_keys)
        super().tie_weights(missing_keys, recompute_mapping)

    def start_missing_queries(self, missing_keys: set[str]) -> set[str]:
        """Starts queries from text in layers whose feed-forward parts of queries are all missing in a checkpoint.

        Returns the names of missing weights that are copies of the checkpoint's.
        """
        copied = set()
        layers: Any = self.layers
        for i, layer in enumerate(layers):
            pairs = {
                f"layers.{i}.{own}.{name}": f"layers.{i}.{text}.{name}"
                for own, text in _TEXT_PART_OF_QUERY_PART.items()
                for name in getattr(layer, own).state_dict()
            }
            if layer.has_text and pairs.keys() <= missing_keys:
                layer.start_queries_from_text()
                copied |= {name for name, text in pairs.items() if text not in missing_keys}
        return copied

    @takes_no_other_arguments
    @merge_with_config_defaults
    @capture_outputs
    def forward(  # type: ignore[misc]  # position_ids is also a key of TransformersKwargs
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_index: Tensor | None = None,
        attention_pattern: AttentionPattern = "bidirectional",
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPoolingAndCrossAttentions:
        """Encodes images by the queries, texts, or both together.

        Args:
            input_ids: (B, L) token ids; without them there are queries only.
            attention_mask: (B, L), 0 on padding.
            encoder_hidden_states: (B', S, Dv) image tokens; without them there are no queries.
            encoder_index: (B,) the row of `encoder_hidden_states` for each row; by default the same row.
            attention_pattern: What queries and text see of each other: nothing (`"unimodal"`), everything
                (`"bidirectional"`), or the text also the queries, and itself from left to right (`"causal"`).
            position_ids: (B, L); counted from 0 when absent.
            inputs_embeds: (B, L, D) token embeddings instead of `input_ids`.
            kwargs: Options such as `output_attentions` and `output_hidden_states`.

        Returns:
            `last_hidden_state` (B, T, D), queries first, and `pooler_output` (B, D), its first token.

        Raises:
            ValueError: If there is neither image nor text, both forms of a text, another number of images, or image
                tokens of another width.
        """
        if input_ids is not None and inputs_embeds is not None:
            raise ValueError("Pass input_ids or inputs_embeds, not both.")
        text = input_ids if inputs_embeds is None else inputs_embeds
        self._check_width(encoder_hidden_states)
        num_rows = self._num_rows(text, encoder_hidden_states, encoder_index)
        hidden_states = self.embeddings(text, position_ids, num_rows)
        num_queries = 0 if num_rows is None else self.config.num_query_tokens
        mask = None
        if text is not None:
            if attention_mask is None:
                attention_mask = torch.ones(text.shape[:2], dtype=torch.long, device=text.device)
            mask = additive_mask(qformer_mask(attention_pattern, num_queries, attention_mask), hidden_states.dtype)
        for layer in self.layers:
            hidden_states = layer(hidden_states, mask, num_queries, encoder_hidden_states, encoder_index, **kwargs)
        return BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=hidden_states, pooler_output=hidden_states[:, 0]
        )

    def _check_width(self, images: Tensor | None) -> None:
        width = self.config.vision_config.hidden_size
        if images is not None and images.shape[-1] != width:
            raise ValueError(
                f"encoder_hidden_states are {images.shape[-1]} wide, and this Q-Former reads image tokens {width} "
                "wide (vision_config.hidden_size): give those of the image encoder that it was trained on."
            )

    @staticmethod
    def _num_rows(text: Tensor | None, images: Tensor | None, index: Tensor | None) -> int | None:
        """Returns the number of rows with queries, or `None` without an image."""
        if images is None:
            if text is None:
                raise ValueError("Nothing to encode: pass encoder_hidden_states (image tokens), input_ids, or both.")
            return None
        rows = images.shape[0] if index is None else index.shape[0]
        if text is not None and text.shape[0] != rows:
            raise ValueError(
                f"Got {rows} image(s) and {text.shape[0]} text(s): pass as many images as texts, or encoder_index "
                "with, for each text, the position of its image."
            )
        return rows


__all__ = ["CBViLAQFormerModel"]
