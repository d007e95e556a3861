"""The fusion encoder of CB-ViLA, shared by all objectives (Sec. IV-C).

Shapes: B batch, T query tokens, S key tokens, H heads, D hidden, Dv vision width.
"""

from typing import Any

from torch import Tensor, nn
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import BaseModelOutput
from transformers.processing_utils import Unpack
from transformers.utils.generic import TransformersKwargs, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .arguments_cbvila import takes_no_other_arguments
from .configuration_cbvila import CBViLAFusionConfig
from .modeling_cbvila_base import PARTS_OF_A_MODEL, CBViLAPreTrainedModel
from .modeling_cbvila_layers import CBViLACrossAttention, CBViLASelfAttention, CBViLATextLayer


class CBViLAFusionModel(CBViLAPreTrainedModel):
    """The upper half of BERT with cross-attention: one modality attends to the other.

    Keys and values are computed from states of the vision width. Text states as keys are first projected to it by
    `text_key_projection` of [`CBViLAModel`], the identity if the widths are equal.

    Example:
    ```python
    >>> import torch
    >>> from transformers_cbvila import CBViLAFusionConfig, CBViLAFusionModel

    >>> small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    >>> model = CBViLAFusionModel(CBViLAFusionConfig(**small, encoder_hidden_size=48))
    >>> text, image = torch.randn(1, 7, 32), torch.randn(1, 17, 48)
    >>> model(text, encoder_hidden_states=image).last_hidden_state.shape
    torch.Size([1, 7, 32])

    ```
    """

    config_class = CBViLAFusionConfig
    base_model_prefix = "fusion_model"
    _names_in_other_checkpoints = {r"^(?:cbvila\.)?fusion_model\.": ""}
    _keys_to_ignore_on_load_unexpected = PARTS_OF_A_MODEL + [r"^twin_layers\."]
    main_input_name = "inputs_embeds"
    _can_record_outputs = {
        "hidden_states": CBViLATextLayer,
        "attentions": CBViLASelfAttention,
        "cross_attentions": CBViLACrossAttention,
    }

    def __init__(self, config: CBViLAFusionConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(
            CBViLATextLayer(config, i, key_value_size=config.encoder_hidden_size)
            for i in range(config.num_hidden_layers)
        )
        self.post_init()

    def keys_values(self, encoder_hidden_states: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Returns keys and values (B', H, S, D/H) of states (B', S, Dv) in each layer, to use in several passes."""
        attentions: list[Any] = [layer.crossattention for layer in self.layers]
        return [attention.keys_values(encoder_hidden_states) for attention in attentions]

    @takes_no_other_arguments
    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        encoder_index: Tensor | None = None,
        encoder_keys_values: list[tuple[Tensor, Tensor]] | None = None,
        num_queries: int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutput:
        """Fuses the states of two modalities.

        Args:
            inputs_embeds: (B, T, D) states of the modality that attends.
            attention_mask: (B, T), 0 on padding.
            encoder_hidden_states: (B', S, Dv) states that it attends to; B' = B without `encoder_index`.
            encoder_attention_mask: (B', S), 0 on padding.
            encoder_index: (B,) the row of `encoder_hidden_states` for each row of queries. Keys and values are then
                projected once for all queries that share them.
            encoder_keys_values: The result of [`keys_values`] instead of `encoder_hidden_states`, to use the
                projections in several passes.
            num_queries: Number of first tokens that the last layer computes, all by default. Matching needs one.
            kwargs: Options such as `output_attentions` and `output_hidden_states`.

        Returns:
            `last_hidden_state` (B, T, D), or (B, `num_queries`, D).

        Raises:
            ValueError: Unless exactly one of `encoder_hidden_states` and `encoder_keys_values` is given.
        """
        if (encoder_hidden_states is None) == (encoder_keys_values is None):
            raise ValueError(
                "The fusion encoder needs encoder_hidden_states, the states of the other modality, or "
                "encoder_keys_values, their keys and values from keys_values(): pass one of the two."
            )
        if encoder_attention_mask is not None and encoder_index is not None:
            encoder_attention_mask = encoder_attention_mask.index_select(0, encoder_index)
        masks = self._mask(inputs_embeds, attention_mask), self._mask(inputs_embeds, encoder_attention_mask)
        hidden_states, last = inputs_embeds, len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            computed = None
            if i == last and num_queries is not None:
                computed, first = num_queries, inputs_embeds[:, :num_queries]
                masks = self._mask(first, attention_mask), self._mask(first, encoder_attention_mask)
            hidden_states = layer(
                hidden_states,
                masks[0],
                encoder_hidden_states,
                masks[1],
                encoder_index,
                encoder_keys_values=None if encoder_keys_values is None else encoder_keys_values[i],
                num_queries=computed,
                **kwargs,
            )
        return BaseModelOutput(last_hidden_state=hidden_states)

    def _mask(self, queries: Tensor, keys_mask: Tensor | None) -> Any:
        """Returns the back end's mask of padding among keys, `keys_mask` (B, S), for queries (B, T, D)."""
        if keys_mask is None:
            return None
        # Only batch size, length and dtype of the keys are read.
        keys = queries.new_empty(*keys_mask.shape[:2], 1)
        return create_bidirectional_mask(
            config=self.config, inputs_embeds=queries, attention_mask=keys_mask, encoder_hidden_states=keys
        )


__all__ = ["CBViLAFusionModel"]
