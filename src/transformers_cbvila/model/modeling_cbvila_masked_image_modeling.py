"""Masked image modelling with a caption: predicts the codes (Eq. 4) and the pixels (Eq. 3) of masked patches.

Shapes: B batch, N patches, L text tokens, D hidden, Dv vision width, ΣK codes of all books, P pixels of a patch.
"""

from dataclasses import dataclass

from torch import Tensor
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_cbvila import CBViLAConfig
from .modeling_cbvila import CBViLAModel
from .modeling_cbvila_base import reorder_fields
from .modeling_cbvila_objectives import weighted_sum
from .modeling_cbvila_queries import EncodedImage
from .modeling_cbvila_reconstruction import CBViLAModelWithReconstruction
from .modeling_cbvila_vision import tokens_to_quantize
from .objective_cbvila import CBViLAStep
from .objective_mim_cbvila import CBViLAMIM
from .objective_pixel_cbvila import CBViLAPixel
from .objectives_cbvila import OBJECTIVES
from .quantizer_output_cbvila import CBViLAQuantizerHints


@dataclass
class CBViLAForMaskedImageModelingOutput(ModelOutput):
    """Output of [`CBViLAForMaskedImageModeling`].

    Args:
        loss (`torch.FloatTensor` ()): Weighted sum of `losses`, when `bool_masked_pos` is given.
        logits (`torch.FloatTensor` (B, N, ΣK)): Scores of all codes, book after book, at each patch.
        reconstruction (`torch.FloatTensor` (B, 3, H, W)): The image reconstructed from visible codes and the most
            likely ones of masked patches, normalized as by the image processor. In evaluation mode, with the pixel
            objective.
        losses (`dict[str, torch.FloatTensor]`): The unweighted terms () with a weight above 0, by name.
        codebook_indices (`torch.LongTensor` (B, N) or (B, N, books)): Code indices of the unmasked image, the targets
            of `logits`.
        hidden_states, attentions, cross_attentions (tuples, *optional*): States of the fusion layers for `logits`: the
            [CLS] query (none with `fusion_visual_cls="none"`) and N patches.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    reconstruction: Tensor | None = None
    losses: dict[str, Tensor] | None = None
    codebook_indices: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


class CBViLAForMaskedImageModeling(CBViLAModelWithReconstruction):
    """CB-ViLA with the objectives for images: MIM, and others with a weight above 0.

    Call [`~CBViLAForMaskedImageModeling.after_step`] after every optimizer step; [`CBViLATrainer`] does.

    Example:
    ```python
    >>> import torch
    >>> from transformers_cbvila import CBViLAConfig, CBViLAForMaskedImageModeling

    >>> small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    >>> config = CBViLAConfig(vision_config={**small, "image_size": 32}, text_config=small, multimodal_config=small)
    >>> model = CBViLAForMaskedImageModeling(config).eval()
    >>> masked = torch.tensor([[True, False, True, True]])  # 4 patches of 16 x 16 pixels
    >>> output = model(torch.randn(1, 3, 32, 32), bool_masked_pos=masked, input_ids=torch.tensor([[101, 7, 102]]))
    >>> output.logits.shape, output.reconstruction.shape
    (torch.Size([1, 4, 3000]), torch.Size([1, 3, 32, 32]))

    ```
    """

    _keys_to_ignore_on_load_unexpected = [
        r"(vision|text)_projection\.",
        r"logit_scale",
        r"twin_layers\.",
    ]

    def __init__(self, config: CBViLAConfig) -> None:
        super().__init__(config)
        config.require_quantizer()
        self.cbvila = CBViLAModel(config, add_contrastive=False, hides_patches=True)
        self.add_objectives([CBViLAMIM.name, *(n for n in config.active_objectives() if OBJECTIVES[n].is_of_images())])
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor | None = None,
        bool_masked_pos: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        token_classes: Tensor | None = None,
        return_loss: bool = True,
        interpolate_pos_encoding: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> CBViLAForMaskedImageModelingOutput:
        """Predicts masked patches from visible ones and the caption.

        Args:
            pixel_values: (B, 3, H, W) images without a mask; the model masks patches after the image encoder (Sec.
                III-B), or before it (`mask_stage` of MIM).
            bool_masked_pos: (B, N) patches to mask; none when absent, and then there is no loss.
            input_ids: (B, L) captions; empty ones when absent.
            attention_mask: (B, L), 0 on padding.
            position_ids: (B, L); counted from 0 when absent.
            inputs_embeds: (B, L, D) token embeddings instead of `input_ids`.
            token_classes: (B, N) a class for each patch, for quantizers that use one.
            return_loss: Whether to compute the loss if patches are masked. (From its default, `Trainer` infers that
                there is a loss without labels.)
            interpolate_pos_encoding: Whether to allow image sizes other than the configured one.
            output_attentions: Whether to return the attention weights of the fusion layers; by default as the
                configuration says.
            output_hidden_states: Whether to return the states of the fusion layers; by default as the configuration
                says.

        Raises:
            ValueError: If the images are missing, or their number or `bool_masked_pos` does not fit.
        """
        options = self.states_to_return(output_attentions, output_hidden_states)
        self.warn_without_after_step()
        if pixel_values is None:
            raise ValueError("Masked image modelling needs pixel_values.")
        if input_ids is None and inputs_embeds is None:
            input_ids, attention_mask = self.empty_captions(pixel_values), None
        texts = input_ids if inputs_embeds is None else inputs_embeds
        bool_masked_pos = self._checked_mask(pixel_values, texts, bool_masked_pos)
        image = self.cbvila.vision_model(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding)
        text = self.cbvila.text_model(
            input_ids, attention_mask, position_ids=position_ids, inputs_embeds=inputs_embeds
        ).last_hidden_state
        tokens = image.last_hidden_state
        hints = CBViLAQuantizerHints.of(token_classes)
        whole = EncodedImage(tokens[:, 0], self.cbvila.quantizer(tokens_to_quantize(image), hints=hints))
        visible = whole
        if bool_masked_pos is not None:
            visible = self.encode_visible(pixel_values, whole, bool_masked_pos, hints)
        fuse = self.fusion_with(pixel_values, text, attention_mask)
        answer, fused = self.predict_codes(fuse, visible, bool_masked_pos, **options)
        output = CBViLAForMaskedImageModelingOutput(
            logits=answer.logits,
            codebook_indices=whole.quantized.indices,
            hidden_states=fused.hidden_states,
            attentions=fused.attentions,
            cross_attentions=fused.get("cross_attentions"),
        )
        if bool_masked_pos is not None and return_loss:
            weights = self.config.loss_weights()
            step = CBViLAStep(
                weights=weights,
                training=self.training,
                pixel_values=pixel_values,
                images=tokens,
                texts=text,
                attention_mask=attention_mask,
                quantizer=self.cbvila.quantizer,
                quantized=whole.quantized,
                pixel_loss=self.pixel_loss_of(pixel_values),
                pixels_are_fused=self.pixels_are_fused,
                hints=hints,
                bool_masked_pos=bool_masked_pos,
            )
            scored, _ = self.score(step, self.active_objectives(weights), known=[answer])
            output.losses = self.scale_for_ranks(step, scored)
            output.loss = weighted_sum(output.losses, weights)
        if not self.training and CBViLAPixel.name in self.objectives:
            output.reconstruction = self.reconstruct_pixels(
                pixel_values, fuse, visible, bool_masked_pos, answer.logits
            )
        return reorder_fields(output)

    def _checked_mask(self, pixel_values: Tensor, texts: Tensor, bool_masked_pos: Tensor | None) -> Tensor | None:
        """Returns `bool_masked_pos` as bool; raises a ValueError if the inputs do not fit each other."""
        images, captions = pixel_values.shape[0], texts.shape[0]
        if images != captions:
            raise ValueError(f"Got {images} image(s) and {captions} caption(s): they must be pairs.")
        self.check_mask(pixel_values, bool_masked_pos)
        return None if bool_masked_pos is None else bool_masked_pos.bool()


__all__ = ["CBViLAForMaskedImageModeling"]
