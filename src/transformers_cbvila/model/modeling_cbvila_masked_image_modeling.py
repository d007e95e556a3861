"""Masked image modelling with a caption: the visual words (Eq. 4) and the pixels (Eq. 3) of patches that are hidden.

Shapes: B batch, N patches, L text tokens, D hidden, Dv vision width, K codes, P pixels of a patch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_cbvila import CBViLAConfig
from .losses_cbvila import bag_loss, classification_loss
from .modeling_cbvila import CBViLAModel
from .modeling_cbvila_image_objectives import CBViLAImageObjectives, CBViLASeenImage
from .modeling_cbvila_layers import reorder_fields
from .modeling_cbvila_pretraining import CBViLALosses


@dataclass
class CBViLAForMaskedImageModelingOutput(ModelOutput):
    """Output of [`CBViLAForMaskedImageModeling`].

    Args:
        loss (`torch.FloatTensor` ()): Weighted sum of `losses`, when `bool_masked_pos` is given.
        logits (`torch.FloatTensor` (B, N, K)): Score of each code at each patch.
        reconstruction (`torch.FloatTensor` (B, 3, H, W)): The image, as the image processor normalises it, from its
            visible words and the most likely ones for hidden patches. In evaluation only.
        losses ([`CBViLALosses`]): The unweighted terms `pixel`, `codebook`, `commitment`, `mim` and `mim_cls_bag` that
            are on.
        codebook_indices (`torch.LongTensor` (B, N)): Visual words of the whole image, the targets of `logits`.
        hidden_states, attentions, cross_attentions (tuples, *optional*): Of the fusion layers that `logits` come
            from: 1 + N tokens, a query [CLS] first (none with `fusion_visual_cls="none"`).
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    reconstruction: Tensor | None = None
    losses: CBViLALosses | None = None
    codebook_indices: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


class CBViLAForMaskedImageModeling(CBViLAImageObjectives):
    """CB-ViLA with the heads that predict visual words and pixels.

    With `codebook_update="ema"`, training calls [`~CBViLAForMaskedImageModeling.update_codebook`] after every
    optimiser step.

    Example:

    ```python
    >>> import torch
    >>> from transformers_cbvila import CBViLAConfig, CBViLAForMaskedImageModeling

    >>> small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    >>> config = CBViLAConfig(vision_config={**small, "image_size": 32}, text_config=small, fusion_config=small)
    >>> model = CBViLAForMaskedImageModeling(config).eval()
    >>> hidden = torch.tensor([[True, False, True, True]])  # 4 patches of 16 x 16 pixels
    >>> output = model(torch.randn(1, 3, 32, 32), bool_masked_pos=hidden, input_ids=torch.tensor([[101, 7, 102]]))
    >>> output.logits.shape, output.reconstruction.shape
    (torch.Size([1, 4, 3000]), torch.Size([1, 3, 32, 32]))

    ```
    """

    _keys_to_ignore_on_load_unexpected = [
        r"(vision|text)_projection\.",
        r"logit_scale",
        r"(mlm|itm)_head\.",
        r"twin_layers\.",
    ]

    def __init__(self, config: CBViLAConfig):
        super().__init__(config)
        self.cbvila = CBViLAModel(config, add_contrastive=False)
        self.add_image_heads()
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
        return_loss: bool = True,
        interpolate_pos_encoding: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> CBViLAForMaskedImageModelingOutput:
        """Predicts what is hidden from what is not and from the caption.

        Args:
            pixel_values: (B, 3, H, W) images, whole: what is hidden is hidden behind the image encoder (Sec. III-B),
                or by the model before it (`mim_mask_stage`).
            bool_masked_pos: (B, N) patches to hide; without it nothing is hidden, and there is no loss.
            input_ids: (B, L) captions, or `inputs_embeds` (B, L, D) in their place; empty ones when absent.
            attention_mask: (B, L), 0 on padding.
            position_ids: (B, L); counted from 0 when absent.
            return_loss: Whether to compute the loss where patches are hidden. (By its default `Trainer` knows that
                evaluation has a loss although there are no labels.)
            interpolate_pos_encoding: Whether images of another size than the configured one are allowed.
            output_attentions, output_hidden_states: Whether to return those states of the fusion layers; as the
                configuration says when absent.

        Raises:
            ValueError: If the images are missing, or their number or `bool_masked_pos` does not fit.
        """
        options = self.states_to_return(output_attentions, output_hidden_states)
        self.watch_codes()
        if pixel_values is None:
            raise ValueError("Masked image modelling needs pixel_values.")
        if input_ids is None and inputs_embeds is None:
            input_ids, attention_mask = self.empty_captions(pixel_values), None
        hidden = self._hidden(pixel_values, input_ids if inputs_embeds is None else inputs_embeds, bool_masked_pos)
        image = self.cbvila.vision_model(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding)
        text = self.cbvila.text_model(
            input_ids, attention_mask, position_ids=position_ids, inputs_embeds=inputs_embeds
        ).last_hidden_state
        tokens = image.last_hidden_state
        whole = CBViLASeenImage(tokens[:, 0], self.cbvila.codebook(tokens[:, 1:]))
        visible = whole if hidden is None else self.see_visible(pixel_values, whole, hidden)
        ask = partial(self.ask_texts, grid=self.patch_grid(pixel_values), text=text, attention_mask=attention_mask)

        fused = ask([self.mim_queries(visible, hidden)], **options)
        states = fused.last_hidden_state
        output = CBViLAForMaskedImageModelingOutput(
            logits=self.mim_scores(self.cbvila.drop_cls(states), whole.codebook.codes),
            codebook_indices=whole.codebook.indices,
            hidden_states=fused.hidden_states,
            attentions=fused.attentions,
            cross_attentions=fused.get("cross_attentions"),
        )
        if hidden is not None and return_loss:
            output.losses = self._losses(output.logits, states[:, 0], pixel_values, whole, visible, ask, hidden)
            output.loss = output.losses.total(self.config.loss_weights())
        if not self.training:
            words = self.words_to_draw(output.logits, visible, hidden)
            output.reconstruction = self.draw(words, pixel_values, ask)
        return reorder_fields(output)

    def _losses(
        self,
        logits: Tensor,
        first_states: Tensor,
        pixel_values: Tensor,
        whole: CBViLASeenImage,
        visible: CBViLASeenImage,
        ask: Callable,
        hidden: Tensor,
    ) -> CBViLALosses:
        """The terms of Eq. 7 that concern images, as in pretraining; `ask` has words attend to the captions."""
        config, losses, codebook = self.config, CBViLALosses(), whole.codebook
        if config.mim_weight > 0:
            labels = codebook.indices.masked_fill(~hidden, -100)
            losses.mim = classification_loss(logits.flatten(0, 1), labels.flatten())
        if self.has_bag_head:
            losses.mim_cls_bag = bag_loss(self.mim_cls_head(first_states), codebook.indices, hidden)
        if config.codebook_update == "loss" and config.codebook_weight > 0:
            losses.codebook = codebook.codebook_loss
        if config.commitment_weight > 0:
            losses.commitment = codebook.commitment_loss
        if config.pixel_weight > 0:
            masks = self.pixel_masks(hidden)
            queries = [self.pixel_queries(whole if mask is None else visible, mask) for mask in masks]
            losses.pixel = self.pixel_term(list(self.pixels(ask, queries)), pixel_values, masks)
        return reorder_fields(losses)

    def _hidden(self, pixel_values: Tensor, texts: Tensor, bool_masked_pos: Tensor | None) -> Tensor | None:
        """`bool_masked_pos` as bool, or the ValueError that says what does not fit."""
        images, captions = pixel_values.shape[0], texts.shape[0]
        if images != captions:
            raise ValueError(f"Got {images} image(s) and {captions} caption(s): they must be pairs.")
        self.check_mask(pixel_values, bool_masked_pos)
        return None if bool_masked_pos is None else bool_masked_pos.bool()


__all__ = ["CBViLAForMaskedImageModeling"]
