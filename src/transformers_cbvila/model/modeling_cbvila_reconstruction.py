"""Images drawn from their quantized tokens, as in the paper's Fig. 2, by a model that has the pixel objective.

Shapes: B batch, N patches, L text tokens, D hidden.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .losses_cbvila import likeliest_codes, patch_moments, patchify, unpatchify
from .modeling_cbvila_objectives import CBViLAModelWithObjectives, EncodedImage
from .objective_cbvila import Answer, VisualQuery
from .objective_mim_cbvila import CBViLAMIM
from .objective_pixel_cbvila import CBViLAPixel
from .quantizer_output_cbvila import CBViLAQuantizerOutput


class CBViLAReconstruction(NamedTuple):
    """An image as its codes show it: `pixel_values` (B, 3, H, W) as the image processor normalises them.

    `codebook_indices` (B, N) or (B, N, books) are the codes it is drawn from, those that were predicted among them.
    """

    pixel_values: Tensor
    codebook_indices: Tensor


class CBViLAModelWithReconstruction(CBViLAModelWithObjectives):
    """Base of the heads that can draw images."""

    @property
    def mim(self) -> Any:
        """The objective that names hidden codes.

        Raises:
            ValueError: If the model was made without.
        """
        return self._objective(CBViLAMIM.name)

    @property
    def pixel(self) -> Any:
        """The objective that draws patches; ValueError if the model was made without."""
        return self._objective(CBViLAPixel.name)

    def _objective(self, name: str) -> Any:
        if name not in self.objectives:
            raise ValueError(
                f"This model was made without the objective {name!r} (weight 0 in its configuration): it names no "
                "hidden codes and draws no images without."
            )
        return self.objectives[name]

    @torch.no_grad()
    def reconstruct(
        self,
        pixel_values: Tensor,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        bool_masked_pos: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
    ) -> CBViLAReconstruction:
        """Draws images from their codes, as in the paper's Fig. 2; to be called in evaluation mode.

        With `bool_masked_pos` in two passes: MIM names the hidden codes (Eq. 4), then the pixel head (Eq. 3) draws the
        image from all codes. That head never saw a hidden token, unless the pixel objective is on `"masked"`: then it
        saw nothing else, and draws what is hidden without a name for it.

        Args:
            pixel_values: (B, 3, H, W) images.
            input_ids: (B, L) captions; empty ones when absent.
            attention_mask: (B, L), 0 on padding.
            bool_masked_pos: (B, N) patches to hide; none when absent.
            interpolate_pos_encoding: Whether images of another size than the configured one are allowed.

        Raises:
            ValueError: If `bool_masked_pos` does not say of every patch whether it is hidden, or the model has no
                objective to draw with.
        """
        self.check_mask(pixel_values, bool_masked_pos)
        if input_ids is None:
            input_ids, attention_mask = self.empty_captions(pixel_values), None
        hidden = None if bool_masked_pos is None else bool_masked_pos.bool()
        tokens = self.cbvila.vision_model(pixel_values, interpolate_pos_encoding).last_hidden_state
        image = EncodedImage(tokens[:, 0], self.cbvila.quantizer(tokens[:, 1:]))
        text = self.cbvila.text_model(input_ids, attention_mask).last_hidden_state
        fuse = self.fusion_with(pixel_values, text, attention_mask)
        indices, logits = image.quantized.indices, None
        if hidden is not None:
            image = self.encode_visible(pixel_values, image, hidden)
            logits = self.predict_codes(fuse, image, hidden)[0].logits
            predicted = likeliest_codes(logits, self.cbvila.quantizer.book_sizes)
            indices = torch.where(_like(hidden, indices), predicted, image.quantized.indices)
        return CBViLAReconstruction(self.draw(pixel_values, fuse, image, hidden, logits), indices)

    def fusion_with(self, pixel_values: Tensor, text: Tensor, attention_mask: Tensor | None) -> Callable:
        """What answers visual queries of images (B, 3, H, W) about texts (B, L, D)."""
        grid = self.patch_grid(pixel_values)
        return partial(self.fuse_visual_queries, grid=grid, texts=text, attention_mask=attention_mask)

    def predict_codes(
        self, fuse: Callable, image: EncodedImage, hidden: Tensor | None, **options
    ) -> tuple[Answer, Any]:
        """The answer to MIM's query with scores (B, N, ΣK) of codes at all patches, and the output of its pass."""
        query = VisualQuery("detached", hidden, self.mim.options.grad_to_vit)
        fused = fuse([(image, query)], **options)
        (answer,) = self.answers_of([query], fused.last_hidden_state)
        return answer._replace(logits=self.mim.scores(answer.states, image.quantized.codes)), fused

    def draw(
        self,
        pixel_values: Tensor,
        fuse: Callable,
        image: EncodedImage,
        hidden: Tensor | None,
        logits: Tensor | None,
    ) -> Tensor:
        """Images (B, 3, H, W) from quantized tokens, with the likeliest codes where they are `hidden` (B, N).

        A pixel head that was trained on all tokens never saw a hidden one, so it is shown the predicted codes; one
        that was trained on hidden ones alone sees these. With `normalize` tokens say what a patch looks like but for
        its mean and contrast; these come from `pixel_values`, as in MAE's pictures.
        """
        options = self.pixel.options
        if hidden is not None and options.on != "masked":
            codes = likeliest_codes(logits, self.cbvila.quantizer.book_sizes)  # type: ignore[arg-type]
            predicted, indices = self.cbvila.quantizer.indices_to_quantized(codes), image.quantized.indices
            quantized = torch.where(hidden.unsqueeze(-1), predicted, image.quantized.quantized)
            image = image._replace(quantized=CBViLAQuantizerOutput(quantized=quantized, indices=indices))
            hidden = None
        query = VisualQuery("quantized", hidden, options.grad_to_vit)
        (answer,) = self.answers_of([query], fuse([(image, query)]).last_hidden_state)
        pixels, patch_size = self.pixel.head(answer.states), self.config.vision_config.patch_size
        if options.normalize:
            mean, deviation = patch_moments(patchify(pixel_values, patch_size))
            pixels = pixels * deviation + mean
        return unpatchify(pixels, patch_size, *pixel_values.shape[-2:])

    def empty_captions(self, pixel_values: Tensor) -> Tensor:
        """Ids (B, 2) of captions that say nothing about images (B, 3, H, W): start and end."""
        text = self.config.text_config
        empty = torch.tensor([[text.bos_token_id, text.end_token_id]], device=pixel_values.device)
        return empty.expand(pixel_values.shape[0], -1)


def _like(mask: Tensor, indices: Tensor) -> Tensor:
    """A mask (B, N) that broadcasts over indices (B, N) or (B, N, books)."""
    return mask if indices.dim() == mask.dim() else mask.unsqueeze(-1)
