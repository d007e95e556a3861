"""Reconstruction of images from their quantized tokens, as in the paper's Fig. 2, with the pixel objective's head.

Shapes: B batch, N patches, L text tokens, D hidden, ΣK codes of all books.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from .codebook_resizing_cbvila import resize_codebook, resized_codes
from .losses_cbvila import likeliest_codes, patch_moments, patchify, unpatchify
from .modeling_cbvila_image_generation import CBViLAImageGeneration
from .modeling_cbvila_image_tokens import CBViLAImageTokens
from .modeling_cbvila_objectives import CBViLAModelWithObjectives
from .modeling_cbvila_queries import EncodedImage
from .modeling_cbvila_vision import tokens_to_quantize
from .objective_cbvila import Answer, VisualQuery
from .objective_mim_cbvila import CBViLAMIM
from .objective_pixel_cbvila import CBViLAPixel
from .quantizer_cbvila import token_codes
from .quantizer_output_cbvila import CBViLAQuantizerHints, CBViLAQuantizerOutput

Fuse = Callable[..., BaseModelOutput]


class CBViLAReconstruction(NamedTuple):
    """Images reconstructed from codes.

    Args:
        pixel_values: (B, 3, H, W), normalized as by the image processor.
        codebook_indices: (B, N) or (B, N, books) codes of the reconstruction, predicted ones at masked patches.
    """

    pixel_values: Tensor
    codebook_indices: Tensor


class CBViLAModelWithReconstruction(CBViLAImageTokens, CBViLAImageGeneration, CBViLAModelWithObjectives):
    """Base class of heads that can reconstruct images, and draw them from captions."""

    @property
    def mim(self) -> Any:
        """The MIM objective.

        Raises:
            ValueError: If the model was built without it.
        """
        return self._objective(CBViLAMIM.name)

    @property
    def pixel(self) -> Any:
        """The pixel objective.

        Raises:
            ValueError: If the model was built without it.
        """
        return self._objective(CBViLAPixel.name)

    def pixel_loss_of(self, pixel_values: Tensor) -> Callable[[Tensor], Tensor] | None:
        """Returns a function from answers (B, N, D) to its query to the loss () of the pixels predicted from them.

        `None` without the pixel objective.
        """
        if CBViLAPixel.name not in self.objectives:
            return None
        grid = self.patch_grid(pixel_values)
        return lambda states: self.pixel.loss(self.pixel.predict(states, grid), pixel_values)

    @property
    def pixels_are_fused(self) -> bool:
        """Whether pixels are predicted from states of the fusion encoder, as the paper does."""
        return CBViLAPixel.name not in self.objectives or self.pixel.is_fused

    def _objective(self, name: str) -> Any:
        if name not in self.objectives:
            raise ValueError(
                f"This model was built without the objective {name!r}, which reconstruction needs: set a weight above "
                "0 in its configuration."
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
        codes: Tensor | None = None,
    ) -> CBViLAReconstruction:
        """Reconstructs images from their codes, as in the paper's Fig. 2; call it in evaluation mode.

        With `bool_masked_pos` it takes two passes: MIM predicts the codes of masked patches (Eq. 4), then the pixel
        head (Eq. 3) reconstructs the image from all codes. A pixel objective `on` `"masked"` was trained on masked
        tokens only, and reconstructs masked patches without predicted codes.

        Args:
            pixel_values: (B, 3, H, W) images.
            input_ids: (B, L) captions; empty ones when absent.
            attention_mask: (B, L), 0 on padding.
            bool_masked_pos: (B, N) patches to mask; none when absent.
            interpolate_pos_encoding: Whether to allow image sizes other than the configured one.
            codes: (K', C) codes to look up in, in place of the quantizer's own, such as fewer codes.

        Raises:
            ValueError: If `bool_masked_pos` has another shape, the model has no objective to reconstruct with, or its
                quantizer or its MIM head cannot use other codes.
        """
        self.check_mask(pixel_values, bool_masked_pos)
        if codes is not None and bool_masked_pos is not None and self.mim.code_weights():
            raise ValueError(
                "A MIM head with weights for each code cannot predict other codes: leave bool_masked_pos or codes out "
                "(a tied head scores any codes)."
            )
        hints = CBViLAQuantizerHints.of(codes=codes)
        if input_ids is None:
            input_ids, attention_mask = self.empty_captions(pixel_values), None
        masked = None if bool_masked_pos is None else bool_masked_pos.bool()
        encoded = self.cbvila.vision_model(pixel_values, interpolate_pos_encoding)
        quantized = self.cbvila.quantizer(tokens_to_quantize(encoded), hints=hints)
        image = EncodedImage(encoded.last_hidden_state[:, 0], quantized)
        text = self.cbvila.text_model(input_ids, attention_mask).last_hidden_state
        fuse = self.fusion_with(pixel_values, text, attention_mask)
        indices, logits = image.quantized.indices, None
        if masked is not None:
            image = self.encode_visible(pixel_values, image, masked, hints)
            logits = self.predict_codes(fuse, image, masked)[0].logits
            predicted = self._likeliest(logits, codes)
            indices = torch.where(_broadcast_mask(masked, indices), predicted, image.quantized.indices)
        pixels = self.reconstruct_pixels(pixel_values, fuse, image, masked, logits, codes)
        return CBViLAReconstruction(pixels, indices)

    def resize_codebook(self, number: int, method: str | None = None) -> Any:
        """Returns a copy of the model with another number of codes, made from its own without training.

        Args:
            number: Number of codes of the copy.
            method: `"dkm"` (fewer codes, the default for them), `"ikm"` (more, the default for them), both of RAQ
                (arXiv 2405.14222), or `"most_used"`.

        Raises:
            ValueError: See [`resized_codes`].
        """
        made = resized_codes(self, number, method)
        return resize_codebook(self, made.codes, made.counts)[0]

    def fusion_with(self, pixel_values: Tensor, text: Tensor, attention_mask: Tensor | None) -> Fuse:
        """Returns a function that runs visual queries of images (B, 3, H, W) over texts (B, L, D)."""
        grid = self.patch_grid(pixel_values)
        return partial(self.fuse_visual_queries, grid=grid, texts=text, attention_mask=attention_mask)

    def predict_codes(
        self, fuse: Fuse, image: EncodedImage, bool_masked_pos: Tensor | None, **options: bool
    ) -> tuple[Answer, BaseModelOutput]:
        """Predicts the codes of all patches with MIM's query, the likeliest of each book.

        Args:
            fuse: The function of [`~CBViLAModelWithReconstruction.fusion_with`].
            image: Encoded images.
            bool_masked_pos: (B, N) patches to mask.
            options: Options of the fusion encoder.

        Returns:
            The answer, with `logits` (B, N, ΣK), and the output of the fusion encoder.
        """
        answer, fused = self.ask_for_codes(fuse, image, bool_masked_pos, **options)
        _, logits = self.mim.decode(answer.states, image.quantized.codes, lambda scores, book: scores.argmax(-1))
        return answer._replace(logits=logits), fused

    def ask_for_codes(
        self, fuse: Fuse, image: EncodedImage, bool_masked_pos: Tensor | None, **options: bool
    ) -> tuple[Answer, BaseModelOutput]:
        """Returns the answer to MIM's query without `logits`, and the output of the fusion encoder.

        Args:
            fuse: See [`~CBViLAModelWithReconstruction.predict_codes`], as the others.
            image: Encoded images.
            bool_masked_pos: (B, N) patches to mask.
            options: Options of the fusion encoder.
        """
        query = VisualQuery("detached", bool_masked_pos, self.mim.options.grad_to_vit)
        fused = fuse([(image, query)], **options)
        (answer,) = self.answers_of([query], fused.last_hidden_state)
        return answer, fused

    def ask_for_pixels(self, fuse: Fuse, image: EncodedImage, bool_masked_pos: Tensor | None = None) -> Answer:
        """Returns the answer to the pixel objective's query.

        Args:
            fuse: See [`~CBViLAModelWithReconstruction.predict_codes`], as the others.
            image: Encoded images.
            bool_masked_pos: (B, N) patches to mask.
        """
        query = self.pixel.query(bool_masked_pos)
        if not query.is_fused:
            return self.unfused_answer(image, query)
        (answer,) = self.answers_of([query], fuse([(image, query)]).last_hidden_state)
        return answer

    def reconstruct_pixels(
        self,
        pixel_values: Tensor,
        fuse: Fuse,
        image: EncodedImage,
        bool_masked_pos: Tensor | None,
        logits: Tensor | None,
        codes: Tensor | None = None,
    ) -> Tensor:
        """Reconstructs images (B, 3, H, W) from quantized tokens.

        The most likely codes replace masked tokens, unless the pixel head was trained on masked tokens only. With
        `normalize`, mean and contrast of each patch come from `pixel_values`, as in the figures of MAE.

        Args:
            pixel_values: (B, 3, H, W) images.
            fuse: The function of [`~CBViLAModelWithReconstruction.fusion_with`].
            image: Encoded images.
            bool_masked_pos: (B, N) masked patches.
            logits: (B, N, ΣK) predictions of [`~CBViLAModelWithReconstruction.predict_codes`], where patches are
                masked.
            codes: (K', C) codes in place of the quantizer's own.
        """
        options = self.pixel.options
        if bool_masked_pos is not None and options.on != "masked":
            likeliest = self._likeliest(logits, codes)
            predicted, indices = self._quantized_of(likeliest, codes), image.quantized.indices
            quantized = torch.where(bool_masked_pos.unsqueeze(-1), predicted, image.quantized.quantized)
            image = image._replace(quantized=CBViLAQuantizerOutput(quantized=quantized, indices=indices))
            bool_masked_pos = None
        answer = self.ask_for_pixels(fuse, image, bool_masked_pos)
        pixels = self.pixel.predict(answer.states, self.patch_grid(pixel_values))
        patch_size = self.config.vision_config.patch_size
        if options.normalize:
            mean, deviation = patch_moments(patchify(pixel_values, patch_size))
            pixels = pixels * deviation + mean
        return unpatchify(pixels, patch_size, *pixel_values.shape[-2:])

    def _likeliest(self, logits: Tensor, codes: Tensor | None) -> Tensor:
        """Returns the likeliest indices (B, N) or (B, N, books) of logits (B, N, ΣK), also of other codes (K', C)."""
        return likeliest_codes(logits, self.cbvila.quantizer.book_sizes if codes is None else (len(codes),))

    def _quantized_of(self, indices: Tensor, codes: Tensor | None) -> Tensor:
        """Returns the quantized tokens (…, D) of indices (…) into the quantizer's codes, or into others (K', C)."""
        quantizer = self.cbvila.quantizer
        if codes is None:
            return quantizer.indices_to_quantized(indices)
        return quantizer.decode(token_codes(indices, codes))

    def empty_captions(self, pixel_values: Tensor) -> Tensor:
        """Returns ids (B, 2) of empty captions for images (B, 3, H, W): start and end of text."""
        text = self.config.text_config
        empty = torch.tensor([[text.bos_token_id, text.end_token_id]], device=pixel_values.device)
        return empty.expand(pixel_values.shape[0], -1)


def _broadcast_mask(mask: Tensor, indices: Tensor) -> Tensor:
    """Returns a mask (B, N) in a shape that broadcasts over indices (B, N) or (B, N, books)."""
    return mask if indices.dim() == mask.dim() else mask.unsqueeze(-1)
