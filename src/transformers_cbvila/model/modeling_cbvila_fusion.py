"""The fusion encoder of CB-ViLA, shared by all objectives (Sec. IV-C), and what visual words look like as its queries.

Shapes: B batch, T query tokens, S key tokens, N patches, D hidden (text = fusion), Dv vision width.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import BaseModelOutput
from transformers.processing_utils import Unpack
from transformers.utils.generic import TransformersKwargs, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .arguments_cbvila import takes_no_other_arguments
from .configuration_cbvila import CBViLAConfig, CBViLAFusionConfig
from .modeling_cbvila_layers import (
    PARTS_OF_A_MODEL,
    CBViLACrossAttention,
    CBViLAPreTrainedModel,
    CBViLASelfAttention,
    CBViLATextLayer,
)
from .modeling_cbvila_vision import interpolate_positions


class CBViLAFusionModel(CBViLAPreTrainedModel):
    """Upper half of BERT with cross-attention: one modality asks, the other answers.

    Keys and values have the vision width. Text states that serve as keys pass `text_key_projection` first, which is
    the identity when both widths agree.

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

    def __init__(self, config: CBViLAFusionConfig):
        super().__init__(config)
        self.layers = nn.ModuleList(
            CBViLATextLayer(config, i, key_value_size=config.encoder_hidden_size)
            for i in range(config.num_hidden_layers)
        )
        self.post_init()

    def keys_values(self, encoder_hidden_states: Tensor) -> list[tuple[Tensor, Tensor]]:
        """What every layer asks of states (B', S, Dv): keys and values (B', H, S, D/H), for more than one pass."""
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
        """Fuses one sequence into another.

        Args:
            inputs_embeds: (B, T, D) states of the modality that asks.
            attention_mask: (B, T), 0 on padding.
            encoder_hidden_states: (B', S, Dv) states of the modality that is asked; B' = B without `encoder_index`.
            encoder_attention_mask: (B', S), 0 on padding.
            encoder_index: (B,) for each query row its row of `encoder_hidden_states`, so that keys and values are
                projected once however many queries share them.
            encoder_keys_values: What [`keys_values`] made of the states, in their place, so that several passes share
                the projections.
            num_queries: How many of the first tokens the last layer computes; all when absent. Matching needs one.

        Returns:
            `last_hidden_state` (B, T, D), or (B, `num_queries`, D).

        Raises:
            ValueError: If there are neither states of the other modality nor keys and values, or both.
        """
        if (encoder_hidden_states is None) == (encoder_keys_values is None):
            raise ValueError(
                "The fusion encoder needs encoder_hidden_states, the states of the other modality, or what its "
                "keys_values() made of them as encoder_keys_values: one of the two."
            )
        if encoder_attention_mask is not None and encoder_index is not None:
            encoder_attention_mask = encoder_attention_mask.index_select(0, encoder_index)
        masks = self._mask(inputs_embeds, attention_mask), self._mask(inputs_embeds, encoder_attention_mask)
        hidden_states, last = inputs_embeds, len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            asking = None
            if i == last and num_queries is not None:
                asking, first = num_queries, inputs_embeds[:, :num_queries]
                masks = self._mask(first, attention_mask), self._mask(first, encoder_attention_mask)
            hidden_states = layer(
                hidden_states,
                masks[0],
                encoder_hidden_states,
                masks[1],
                encoder_index,
                encoder_keys_values=None if encoder_keys_values is None else encoder_keys_values[i],
                num_queries=asking,
                **kwargs,
            )
        return BaseModelOutput(last_hidden_state=hidden_states)

    def _mask(self, queries: Tensor, keys_mask: Tensor | None) -> Any:
        """What keeps queries (B, T, D) from padding among keys, `keys_mask` (B, S), in the back end's form."""
        if keys_mask is None:
            return None
        # of the keys only batch size, length and precision are read
        keys = queries.new_empty(*keys_mask.shape[:2], 1)
        return create_bidirectional_mask(
            config=self.config, inputs_embeds=queries, attention_mask=keys_mask, encoder_hidden_states=keys
        )


class CBViLAVisualQueries(nn.Module):
    """Turns visual words into fusion queries.

    A codeword knows nothing of its place and a masked one nothing at all: without positions all masked queries would
    be the same. The paper is silent; by default we add learned positions, a learned mask embedding and a query [CLS]
    (`fusion_visual_pos` and `fusion_visual_cls` of the configuration).
    """

    def __init__(self, config: CBViLAConfig, hides_patches: bool = True):
        super().__init__()
        vision, size = config.vision_config, config.multimodal_config.hidden_size
        same = vision.hidden_size == size
        self.cls_source = config.fusion_visual_cls
        self.has_positions = config.fusion_visual_pos == "learned"
        self.projection = nn.Identity() if same else nn.Linear(vision.hidden_size, size)
        if self.cls_source == "learned":
            self.cls_token = nn.Parameter(torch.zeros(1, 1, size))
        if hides_patches:
            self.mask_token = nn.Parameter(torch.zeros(1, 1, size))
        if self.has_positions:
            # One for [CLS] in any case: the table then fits, whatever stands there.
            self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + vision.num_patches, size))
        self.layernorm = nn.LayerNorm(size, eps=config.multimodal_config.layer_norm_eps)
        self.dropout = nn.Dropout(config.multimodal_config.hidden_dropout_prob)

    def init_own_weights(self, std: float) -> None:
        for parameter in self.parameters(recurse=False):
            init.normal_(parameter, std=std)

    @property
    def first_patch(self) -> int:
        """The place of the first patch among the queries: 1 behind a [CLS], or 0."""
        return 0 if self.cls_source == "none" else 1

    def forward(
        self,
        tokens: Tensor,
        grid: tuple[int, int],
        bool_masked_pos: Tensor | None = None,
        image_cls: Tensor | None = None,
    ) -> Tensor:
        """Visual words (B, N, Dv) of a grid of patches to queries (B, 1 + N, D); masked ones (B, N) are hidden.

        `image_cls` (B, Dv) is the image encoder's class token, for `fusion_visual_cls="vit"`. With `"none"` there are
        N queries.
        """
        dtype = self.layernorm.weight.dtype
        queries = self.projection(tokens.to(dtype))
        if bool_masked_pos is not None:
            queries = torch.where(bool_masked_pos.unsqueeze(-1), self.mask_token.to(queries.dtype), queries)
        if self.cls_source == "learned":
            queries = torch.cat([self.cls_token.expand(queries.shape[0], -1, -1), queries], dim=1)
        elif self.cls_source == "vit":
            if image_cls is None:
                raise ValueError(
                    "fusion_visual_cls='vit': visual words ask together with image_cls, which is missing."
                )
            queries = torch.cat([self.projection(image_cls.unsqueeze(1).to(dtype)), queries], dim=1)
        if self.has_positions:
            positions = interpolate_positions(self.position_embeddings, grid)
            queries = queries + positions[:, 1 - self.first_patch :]
        return self.dropout(self.layernorm(queries))


__all__ = ["CBViLAFusionModel"]
