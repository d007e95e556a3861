"""A fusion encoder that attends to two images in alternation, as in ALBEF for NLVR2 (`reasoning_fusion="twin"`).

Shapes: B batch, T query tokens, S key tokens of an image, D hidden, Dv vision width.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput
from transformers.processing_utils import Unpack
from transformers.utils.generic import TransformersKwargs, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .arguments_cbvila import takes_no_other_arguments
from .configuration_cbvila import CBViLAFusionConfig
from .modeling_cbvila_fusion import CBViLAFusionModel
from .modeling_cbvila_layers import CBViLATextLayer


class CBViLATwinFusionModel(CBViLAFusionModel):
    """A fusion encoder with a twin after each layer: the layer attends to the first image, its twin to the second.

    The keys and values of both images are computed by the layer. The twin has all other weights of its own, so that n
    layers in the configuration are 2n.
    """

    def __init__(self, config: CBViLAFusionConfig) -> None:
        super().__init__(config)
        self.twin_layers = nn.ModuleList(
            CBViLATextLayer(config, i, key_value_size=config.encoder_hidden_size)
            for i in range(config.num_hidden_layers)
        )
        attentions: list[Any] = [twin.crossattention for twin in self.twin_layers]
        for attention in attentions:
            del attention.k_proj, attention.v_proj
        self.post_init()

    @torch.no_grad()
    def start_twins(self) -> set[str]:
        """Copies each layer to its twin and returns the names of the weights that were set.

        Raises:
            ValueError: If weights are offloaded.
        """
        source, own = self.layers.state_dict(), self.twin_layers.state_dict()
        if any(source[name].is_meta or own[name].is_meta for name in own):
            raise ValueError(
                "The checkpoint has no twin_layers, and they cannot be copied from the fusion encoder while parts of "
                "either are offloaded. Load the checkpoint without device_map, save it, and load that with device_map."
            )
        self.twin_layers.load_state_dict({name: source[name] for name in own})
        return {f"twin_layers.{name}" for name in own}

    @takes_no_other_arguments
    @merge_with_config_defaults
    @capture_outputs
    def forward(  # type: ignore[override]  # images have no index, and keys are computed here
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutput:
        """Fuses a text with two images.

        Args:
            inputs_embeds: (B, T, D) states of the text.
            attention_mask: (B, T), 0 on padding.
            encoder_hidden_states: (2B, S, Dv) states of the images, the two of each text in succession.
            kwargs: Options such as `output_attentions` and `output_hidden_states`.

        Returns:
            `last_hidden_state` (B, T, D).

        Raises:
            ValueError: If there are not two images for each text.
        """
        texts = inputs_embeds.shape[0]
        images = 0 if encoder_hidden_states is None else encoder_hidden_states.shape[0]
        if images != 2 * texts:
            raise ValueError(f"Got {images} image(s) for {texts} text(s): twin layers need two for each; pass them.")
        mask = self._mask(inputs_embeds, attention_mask)
        hidden_states = inputs_embeds
        for layer, twin in zip(self.layers, self.twin_layers, strict=True):
            attention: Any = layer.crossattention
            keys, values = attention.keys_values(encoder_hidden_states)
            for image, attending in enumerate((layer, twin)):
                own = keys[image::2], values[image::2]
                hidden_states = attending(hidden_states, mask, encoder_keys_values=own, **kwargs)
        return BaseModelOutput(last_hidden_state=hidden_states)


__all__ = ["CBViLATwinFusionModel"]
