"""Visual reasoning (Sec. IV-E): whether a statement about several images, two in NLVR2, is true.

The statement is fused with each image separately, and a classifier reads all joint representations. The paper does not
specify this; it uses the pretrained weights as they are. ALBEF's variant is `reasoning_fusion="twin"`.

Shapes: B statements, n images of each, L text tokens, N patches, D hidden.
"""

import torch
from torch import Tensor
from transformers.utils import logging
from transformers.utils.generic import can_return_tuple

from .configuration_cbvila import CBViLAConfig
from .explained_cbvila import CBViLAExplainedClasses
from .losses_cbvila import classification_loss
from .modeling_cbvila import PRETRAINING_ONLY, CBViLAModel
from .modeling_cbvila_base import CBViLAPreTrainedModel
from .modeling_cbvila_classification import (
    REASONING_LABELS,
    CBViLAClassificationHead,
    CBViLAClassificationOutput,
    check_labels,
    with_labels,
)
from .modeling_cbvila_fusion import CBViLAFusionModel
from .modeling_cbvila_twin_fusion import CBViLATwinFusionModel

logger = logging.get_logger(__name__)


class CBViLAForVisualReasoning(CBViLAExplainedClasses, CBViLAPreTrainedModel):
    """Classifies a statement about `config.num_images` images as true or false.

    With `reasoning_fusion="twin"`, if the checkpoint has no twin layers (a base or pretraining model), they are
    initialized from the fusion layers, as in ALBEF.

    Example:
    ```python
    >>> import torch
    >>> from transformers_cbvila import CBViLAConfig, CBViLAForVisualReasoning

    >>> small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    >>> config = CBViLAConfig(vision_config={**small, "image_size": 32}, text_config=small, multimodal_config=small)
    >>> model = CBViLAForVisualReasoning(config)
    >>> images = torch.zeros(1, 2, 3, 32, 32)  # one statement about two images
    >>> model(images, input_ids=torch.tensor([[101, 7, 102]]), labels=torch.tensor([1])).logits.shape
    torch.Size([1, 2])

    ```
    """

    _keys_to_ignore_on_load_unexpected = PRETRAINING_ONLY

    def __init__(self, config: CBViLAConfig) -> None:
        config = with_labels(config, REASONING_LABELS, type(self).__name__)
        super().__init__(config)
        size = config.multimodal_config.hidden_size
        self.is_twin = config.reasoning_fusion == "twin"
        fusion_class = CBViLATwinFusionModel if self.is_twin else CBViLAFusionModel
        self.cbvila = CBViLAModel(config, add_contrastive=False, add_quantizer=False, fusion_class=fusion_class)
        representations = 1 if self.is_twin else config.num_images
        self.reasoning_head = CBViLAClassificationHead(representations * size, size, config.num_labels)
        self.post_init()

    @property
    def explained_images(self) -> int:  # type: ignore[override]  # of this configuration
        """Number of images of a statement."""
        return self.config.num_images

    def tie_weights(self, missing_keys: set[str] | None = None, recompute_mapping: bool = True) -> None:
        """Ties the embeddings, and initializes the twin layers if a checkpoint has none."""
        # `from_pretrained` calls this after loading and before it reports missing keys. Twins that lack only some
        # weights were trained: they are left as they are.
        if missing_keys and self.is_twin:
            prefix, fusion = "cbvila.fusion_model.", self.cbvila.fusion_model
            twins = {f"{prefix}twin_layers.{name}" for name in fusion.twin_layers.state_dict()}
            layers = {f"{prefix}layers.{name}" for name in fusion.layers.state_dict()}
            if twins <= missing_keys and not layers & missing_keys:
                missing_keys -= {f"{prefix}{name}" for name in fusion.start_twins()}
                logger.warning(
                    "The twin layers, which attend to the second image, were copied from the fusion layers."
                )
        super().tie_weights(missing_keys, recompute_mapping)

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> CBViLAClassificationOutput:
        """Classifies statements about images.

        Args:
            pixel_values: (B, n, 3, H, W) the images of each statement, in order.
            input_ids: (B, L) statements.
            attention_mask: (B, L), 0 on padding.
            position_ids: (B, L); counted from 0 when absent.
            inputs_embeds: (B, L, D) token embeddings instead of `input_ids`.
            labels: (B,) class ids; the loss ignores -100.
            interpolate_pos_encoding: Whether to allow image sizes other than the configured one.
            output_attentions: Whether to return the attention weights of the fusion layers; by default as the
                configuration says.
            output_hidden_states: Whether to return the states of the fusion layers; by default as the configuration
                says.

        Raises:
            ValueError: If images or statements are missing, there are not n images per statement, or labels are not
                class ids.
        """
        options = self.states_to_return(output_attentions, output_hidden_states)
        self._check(pixel_values, input_ids if inputs_embeds is None else inputs_embeds)
        batch, images = pixel_values.shape[:2]
        vision = self.cbvila.vision_model(
            pixel_values.flatten(0, 1), interpolate_pos_encoding=interpolate_pos_encoding
        )
        text = self.cbvila.text_model(
            input_ids, attention_mask, position_ids=position_ids, inputs_embeds=inputs_embeds
        ).last_hidden_state
        # The n passes as one: row b * n + i attends to image i of statement b. Twin layers attend to both in one pass.
        statement = torch.arange(batch, device=text.device)
        if not self.is_twin:
            statement = statement.repeat_interleave(images)
        fused = self.cbvila.fuse_text_with_image(
            text.index_select(0, statement),
            None if attention_mask is None else attention_mask.index_select(0, statement),
            vision.last_hidden_state,
            **options,
        )
        logits = self.reasoning_head(fused.last_hidden_state[:, 0].reshape(batch, -1))
        if labels is not None:
            check_labels(labels, logits.shape[0], self.config, self)
        return CBViLAClassificationOutput(
            loss=None if labels is None else classification_loss(logits, labels),
            logits=logits,
            hidden_states=fused.hidden_states,
            attentions=fused.attentions,
            cross_attentions=fused.get("cross_attentions"),
        )

    def _check(self, pixel_values: Tensor | None, texts: Tensor | None) -> None:
        if pixel_values is None or texts is None:
            missing = "pixel_values" if pixel_values is None else "input_ids"
            raise ValueError(f"The model needs images and a statement about them: {missing} is missing.")
        n = self.config.num_images
        if pixel_values.dim() != 5 or pixel_values.shape[1] != n:
            raise ValueError(
                f"pixel_values has shape {tuple(pixel_values.shape)}; expected (batch, {n}, 3, height, width), the "
                f"{n} images of each statement. From images in a row: pixel_values.unflatten(0, (-1, {n})); for "
                "another number of images per statement: config.num_images."
            )
        if pixel_values.shape[0] != texts.shape[0]:
            raise ValueError(
                f"Got {pixel_values.shape[0]} group(s) of images and {texts.shape[0]} statement(s); pass one group "
                "for each statement."
            )


__all__ = ["CBViLAForVisualReasoning"]
