"""Images as visual words, and images drawn from visual words alone.

Shapes: B batch, N patches, L text tokens.
"""

from math import isqrt
from typing import Any

import torch
from torch import Tensor

from .modeling_cbvila_vision import tokens_to_quantize


class CBViLAImageTokens:
    """Mixin for models that turn images into visual words and back; they provide the rest of reconstruction."""

    cbvila: Any
    config: Any
    device: Any
    pixel: Any
    empty_captions: Any
    fusion_with: Any
    image_of_codes: Any
    reconstruct_pixels: Any

    @torch.no_grad()
    def tokenize(self, pixel_values: Tensor, interpolate_pos_encoding: bool = False) -> Tensor:
        """Returns the visual words of images: their code indices (B, N), or (B, N, books); call it in evaluation mode.

        Args:
            pixel_values: (B, 3, H, W) images, as the image processor returns them.
            interpolate_pos_encoding: Whether to allow image sizes other than the configured one.

        Raises:
            ValueError: If the model has no codebook.
        """
        quantizer = self.cbvila.require_quantizer()
        encoded = self.cbvila.vision_model(pixel_values, interpolate_pos_encoding)
        return quantizer(tokens_to_quantize(encoded)).indices

    @torch.no_grad()
    def detokenize(
        self,
        indices: Tensor,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        grid: tuple[int, int] | None = None,
    ) -> Tensor:
        """Returns images (B, 3, H, W), normalized as by the image processor, drawn from visual words alone.

        Args:
            indices: (B, N) or (B, N, books) code indices, as `tokenize` returns them.
            input_ids: (B, L) captions; empty ones when absent.
            attention_mask: (B, L), 0 on padding.
            grid: Rows and columns of patches; by default those of a square image.

        Raises:
            ValueError: If indices are out of range or do not fill the grid, or the model needs more than them to
                draw an image: the mean and contrast of patches (pixel `normalize`), or the class token.
        """
        self._check_draws_from_codes_alone()
        rows, columns = self._checked_grid(indices, grid)
        patch_size, image = self.config.vision_config.patch_size, self.image_of_codes(indices.to(self.device))
        blank = image.cls.new_zeros(len(indices), 3, rows * patch_size, columns * patch_size)
        if input_ids is None:
            input_ids, attention_mask = self.empty_captions(blank), None
        text = self.cbvila.text_model(input_ids, attention_mask).last_hidden_state
        return self.reconstruct_pixels(blank, self.fusion_with(blank, text, attention_mask), image, None, None)

    def _check_draws_from_codes_alone(self) -> None:
        if not self.pixel.predicts_whole_patches:
            raise ValueError(
                "This model predicts patches without their mean and contrast (pixel normalize=True), which codes do "
                "not tell: use reconstruct, which takes them from the image."
            )
        if self.config.fusion_visual_cls == "vit":
            raise ValueError(
                "This model draws images from codes and the class token (fusion_visual_cls='vit'), which codes do "
                "not tell: use reconstruct, which encodes the image."
            )

    def _checked_grid(self, indices: Tensor, grid: tuple[int, int] | None) -> tuple[int, int]:
        """Returns rows and columns of patches. ValueError unless indices are codes of as many patches."""
        quantizer = self.cbvila.quantizer
        books = len(quantizer.book_sizes)
        if indices.ndim != 2 + (books > 1) or indices.is_floating_point() or (books > 1 and indices.shape[2] != books):
            form = "(B, N)" if books == 1 else f"(B, N, {books})"
            raise ValueError(f"indices must be integers {form}, got {indices.dtype} {tuple(indices.shape)}.")
        sizes = torch.tensor(quantizer.book_sizes, device=indices.device)
        if ((indices < 0) | (indices >= sizes)).any():
            raise ValueError(
                f"indices must be from 0 to {int(sizes.max()) - 1}, got {int(indices.min())} to {int(indices.max())}."
            )
        side = isqrt(indices.shape[1])
        rows, columns = (side, side) if grid is None else grid
        if rows * columns != indices.shape[1]:
            raise ValueError(
                f"{indices.shape[1]} patches do not fill a grid of {rows} x {columns}: give grid=(rows, columns)."
            )
        return rows, columns
