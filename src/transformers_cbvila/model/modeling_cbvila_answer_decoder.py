"""The answer decoder: a causal language model that attends to the fused question.

Shapes: B answers, B' questions, L question tokens, A answer tokens, D hidden, V vocabulary.
"""

from copy import deepcopy
from typing import Any

from torch import Tensor, nn
from transformers import GenerationMixin
from transformers.cache_utils import Cache
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions
from transformers.processing_utils import Unpack
from transformers.utils.generic import TransformersKwargs, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .arguments_cbvila import takes_no_other_arguments
from .caching_cbvila import as_cross_cache, named_cache, one_cache, with_cache_named
from .configuration_cbvila import CBViLAConfig, CBViLATextConfig
from .modeling_cbvila_base import CBViLAPreTrainedModel
from .modeling_cbvila_layers import CBViLACrossAttention, CBViLASelfAttention, CBViLATextLayer
from .modeling_cbvila_text import CBViLATextEmbeddings
from .text_head_cbvila import CBViLATextHead


class CBViLAAnswerDecoder(CBViLAPreTrainedModel, GenerationMixin):
    """A causal language model over answers with cross-attention to the fused question.

    Its layers are like those of the fusion encoder, from which [`CBViLAForQuestionAnswering`] initializes them.
    """

    config_class = CBViLATextConfig
    base_model_prefix = "answer_decoder"
    main_input_name = "input_ids"
    input_modalities: Any = ("text",)
    _tied_weights_keys = {"lm_head.decoder.weight": "embeddings.word_embeddings.weight"}
    _input_embed_layer = "word_embeddings"
    _can_record_outputs = {
        "hidden_states": CBViLATextLayer,
        "attentions": CBViLASelfAttention,
        "cross_attentions": CBViLACrossAttention,
    }

    def __init__(self, config: CBViLATextConfig) -> None:
        super().__init__(config)
        self.embeddings = CBViLATextEmbeddings(config)
        self.layers = nn.ModuleList(
            CBViLATextLayer(config, i, is_causal=True, key_value_size=config.hidden_size)
            for i in range(config.num_hidden_layers)
        )
        self.lm_head = CBViLATextHead(config)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        """Returns the linear layer that scores tokens."""
        return self.lm_head.decoder

    def set_output_embeddings(self, value: nn.Module) -> None:
        """Replaces the linear layer that scores tokens."""
        self.lm_head.decoder = value

    @takes_no_other_arguments
    @merge_with_config_defaults
    @capture_outputs
    def forward(  # type: ignore[misc]  # position_ids is also a key of TransformersKwargs
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        encoder_index: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        cache: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CausalLMOutputWithCrossAttentions:
        """Scores the token after each answer token.

        Args:
            input_ids: (B, A) answer tokens, starting with [CLS].
            attention_mask: (B, A), 0 on padding.
            encoder_hidden_states: (B', L, D) fused questions; B' = B without `encoder_index`.
            encoder_attention_mask: (B', L), 0 on padding.
            encoder_index: (B,) the question of each answer.
            inputs_embeds: (B, A, D) token embeddings instead of `input_ids`.
            position_ids: (B, A); counted from the length of the cache when absent.
            past_key_values: Keys and values of previous tokens.
            use_cache: Whether to return the keys and values; by default as the configuration says.
            logits_to_keep: Number of last positions to score, 0 for all; or the indices of positions.
            cache: Another name for `past_key_values`.
            kwargs: Options such as `output_attentions` and `output_hidden_states`.

        Returns:
            `logits` (B, A, V), and with `use_cache` the cache.

        Raises:
            ValueError: If there are no fused questions, or a cache is passed by both names.
        """
        if encoder_hidden_states is None:
            raise ValueError("The answer decoder needs encoder_hidden_states, the states of the fused question.")
        past = as_cross_cache(one_cache(cache, past_key_values), use_cache, self.config)
        past_length = 0 if past is None else past.get_seq_length()
        hidden_states = self.embeddings(input_ids, inputs_embeds, position_ids, past_length)
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=hidden_states,
            attention_mask=attention_mask,
            **named_cache(None if past is None else past.self_attention_cache),
        )
        encoder_mask = self._encoder_mask(hidden_states, encoder_hidden_states, encoder_attention_mask, encoder_index)
        for layer in self.layers:
            # `layer_past` is a name under which gradient checkpointing, which computes a layer twice, removes the
            # cache in all versions of transformers.
            hidden_states = layer(
                hidden_states,
                mask,
                encoder_hidden_states,
                encoder_mask,
                encoder_index,
                layer_past=past,
                **kwargs,
            )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(hidden_states[:, kept])
        return CausalLMOutputWithCrossAttentions(logits=logits, **named_cache(past if use_cache else None))

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Generates as [`~transformers.GenerationMixin.generate`] does, with a cache passed by either name."""
        return super().generate(*args, **with_cache_named(kwargs))

    def _encoder_mask(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None,
        encoder_index: Tensor | None,
    ) -> Any:
        """Returns the mask of padding in the questions for each answer, as the back end needs it."""
        if encoder_attention_mask is None:
            return None
        if encoder_index is not None:
            encoder_attention_mask = encoder_attention_mask.index_select(0, encoder_index)
        return create_bidirectional_mask(
            config=self.config,
            inputs_embeds=hidden_states,
            attention_mask=encoder_attention_mask,
            encoder_hidden_states=encoder_hidden_states[:1].expand(hidden_states.shape[0], -1, -1),
        )


def decoder_config(config: CBViLAConfig) -> CBViLATextConfig:
    """Returns the configuration of the answer decoder: the text encoder's, with the depth of the fusion encoder."""
    decoder = deepcopy(config.text_config)
    decoder.is_decoder = True
    decoder.num_hidden_layers = config.multimodal_config.num_hidden_layers
    decoder.tie_word_embeddings = config.tie_word_embeddings
    return decoder


__all__ = ["CBViLAAnswerDecoder"]
