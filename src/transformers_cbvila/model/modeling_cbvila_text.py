"""The text encoder of CB-ViLA: the lower half of BERT (Sec. IV-C).

Shapes: B batch, L text tokens, D hidden size.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.processing_utils import Unpack
from transformers.utils.generic import TransformersKwargs, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .arguments_cbvila import takes_no_other_arguments
from .configuration_cbvila import CBViLATextConfig
from .label_checks_cbvila import INDEX, check_ids
from .modeling_cbvila_base import PARTS_OF_A_MODEL, CBViLAPreTrainedModel
from .modeling_cbvila_layers import CBViLASelfAttention, CBViLATextLayer


class CBViLATextEmbeddings(nn.Module):
    """Embeddings of tokens, positions and (constant) token types, as in BERT."""

    def __init__(self, config: CBViLATextConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_length: int = 0,
    ) -> Tensor:
        """Embeds token ids (B, L), or `inputs_embeds` (B, L, D), after `past_length` cached tokens, to (B, L, D)."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Pass exactly one of input_ids and inputs_embeds.")
        given, name, dims = (inputs_embeds, "inputs_embeds", 3) if input_ids is None else (input_ids, "input_ids", 2)
        if given.dim() != dims:
            expected = "(batch, tokens)" if dims == 2 else "(batch, tokens, hidden_size)"
            raise ValueError(f"{name} has shape {tuple(given.shape)}; expected {expected}.")
        if isinstance(given.shape[1], int) and given.shape[1] < 1:  # symbolic in torch.export
            raise ValueError(f"{name} has shape {tuple(given.shape)}: a text has at least one token.")
        if inputs_embeds is None:
            vocabulary = num_embeddings(self.word_embeddings)
            rule = f"the vocabulary has {vocabulary} tokens; is the tokenizer that of the model?"
            check_ids("input_ids", input_ids, tuple(input_ids.shape), vocabulary, rule, self, False, INDEX)
            inputs_embeds = self.word_embeddings(input_ids)
        length = past_length + inputs_embeds.shape[1]
        self._check_length(length)
        if position_ids is None:
            position_ids = torch.arange(past_length, length, device=inputs_embeds.device).unsqueeze(0)
        types = self.token_type_embeddings(torch.zeros_like(position_ids))  # all of type 0
        return self.dropout(self.layernorm(inputs_embeds + self.position_embeddings(position_ids) + types))

    def _check_length(self, length: int) -> None:
        limit = num_embeddings(self.position_embeddings)
        if isinstance(length, int) and length > limit:  # a tensor with a compiled cache
            raise ValueError(
                f"The text has {length} tokens but the model knows {limit} positions (max_position_embeddings). "
                f"Shorten it, or let the tokenizer do so: truncation=True, max_length={limit}."
            )


def num_embeddings(embeddings: nn.Module) -> int:
    """Returns the number of embeddings."""
    # Not from the shape of the weight, which is empty on ranks without a shard of it.
    plain: Any = getattr(embeddings, "base_layer", embeddings)  # the layer that PEFT adapts
    return plain.num_embeddings


class CBViLATextModel(CBViLAPreTrainedModel):
    """BERT encoder without a pooler. The state of the first token is the pooled representation of the text.

    Example:
    ```python
    >>> import torch
    >>> from transformers_cbvila import CBViLATextConfig, CBViLATextModel

    >>> small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    >>> model = CBViLATextModel(CBViLATextConfig(**small))
    >>> model(torch.tensor([[101, 7, 102]])).last_hidden_state.shape
    torch.Size([1, 3, 32])

    ```
    """

    config_class = CBViLATextConfig
    base_model_prefix = "text_model"
    _names_in_other_checkpoints = {r"^(?:cbvila\.)?text_model\.": ""}
    _keys_to_ignore_on_load_unexpected = PARTS_OF_A_MODEL
    main_input_name = "input_ids"
    input_modalities = ("text",)
    _input_embed_layer = "word_embeddings"
    _can_record_outputs = {"hidden_states": CBViLATextLayer, "attentions": CBViLASelfAttention}

    def __init__(self, config: CBViLATextConfig) -> None:
        super().__init__(config)
        self.embeddings = CBViLATextEmbeddings(config)
        self.layers = nn.ModuleList(CBViLATextLayer(config, i) for i in range(config.num_hidden_layers))
        self.post_init()

    @takes_no_other_arguments
    @merge_with_config_defaults
    @capture_outputs
    def forward(  # type: ignore[misc]  # position_ids is also a key of TransformersKwargs
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """Encodes texts.

        Args:
            input_ids: (B, L) token ids.
            attention_mask: (B, L), 0 on padding.
            position_ids: (B, L); counted from 0 when absent.
            inputs_embeds: (B, L, D) token embeddings instead of `input_ids`.
            kwargs: Options such as `output_attentions` and `output_hidden_states`.

        Returns:
            `last_hidden_state` (B, L, D) and `pooler_output` (B, D), the state of the first token.
        """
        hidden_states = self.embeddings(input_ids, inputs_embeds, position_ids)
        mask = create_bidirectional_mask(
            config=self.config, inputs_embeds=hidden_states, attention_mask=attention_mask
        )
        for layer in self.layers:
            hidden_states = layer(hidden_states, mask, **kwargs)
        return BaseModelOutputWithPooling(last_hidden_state=hidden_states, pooler_output=hidden_states[:, 0])


__all__ = ["CBViLATextModel"]
