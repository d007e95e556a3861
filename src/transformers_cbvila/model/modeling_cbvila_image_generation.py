"""Images drawn from captions: visual words are decoded in a few steps, and the pixel head draws them.

All patches start hidden. In each step MIM predicts the hidden visual words under the caption, samples are taken, and
those that the model is least sure of are hidden again (MaskGIT, arXiv 2202.04200).

Shapes: B images, N patches, L text tokens.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .decoding_steps_cbvila import (
    SCHEDULES,
    Generators,
    confidence_in,
    gumbel_noise,
    hidden_counts,
    least_confident,
    sample_codes,
)
from .modeling_cbvila_queries import EncodedImage
from .quantizer_output_cbvila import CBViLAQuantizerOutput


class CBViLADecodingStep(NamedTuple):
    """Visual words after a step.

    Args:
        codebook_indices: (B, N) or (B, N, books); those of hidden patches are what the model would take by now.
        bool_masked_pos: (B, N) bool, patches that are still hidden.
    """

    codebook_indices: Tensor
    bool_masked_pos: Tensor


class CBViLAGeneratedImages(NamedTuple):
    """Images drawn from captions.

    Args:
        pixel_values: (B, 3, H, W), normalized as by the image processor.
        codebook_indices: (B, N) or (B, N, books) visual words of the images.
        steps: The visual words after each step.
    """

    pixel_values: Tensor
    codebook_indices: Tensor
    steps: tuple[CBViLADecodingStep, ...]


class CBViLAImageGeneration:
    """Mixin for models that draw images from captions; they provide the rest of reconstruction."""

    cbvila: Any
    config: Any
    device: Any
    mim: Any
    pixel: Any
    tokenize: Any
    reconstruct_pixels: Any
    empty_captions: Any
    fusion_with: Any
    ask_for_codes: Any
    check_mask: Any
    _check_draws_from_codes_alone: Any

    @torch.no_grad()
    def generate_images(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        bool_masked_pos: Tensor | None = None,
        num_steps: int = 8,
        temperature: float = 1.0,
        top_k: int | None = None,
        guidance_scale: float = 1.0,
        choice_temperature: float = 4.5,
        generator: Generators = None,
        schedule: str = "cosine",
    ) -> CBViLAGeneratedImages:
        """Draws an image for each caption, or redraws a part of an image; call it in evaluation mode.

        It needs a model that was trained with MIM and the pixel objective, and draws best if masks had all sizes
        (`mim_mask_schedule="cosine"`). Guidance needs captions to have been dropped at times (`text_drop_prob`).

        Args:
            input_ids: (B, L) captions.
            attention_mask: (B, L), 0 on padding.
            pixel_values: (B, 3, H, W) images of which a part is redrawn.
            bool_masked_pos: (B, N) bool, the part: patches to draw. The others keep their visual words.
            num_steps: Number of steps T, at most as many as there are patches.
            temperature: Of the codes' distributions; 0 takes the likeliest codes.
            top_k: How many of the likeliest codes to sample from; all by default. Not with a temperature of 0.
            guidance_scale: How far to go from the prediction under an empty caption to that under the caption, and
                beyond if above 1 (classifier-free guidance).
            choice_temperature: Of the noise in the choice of the words to keep, which falls to 0 with the steps.
            generator: Generator of all samples, for images that can be drawn again; or one for each image, which then
                does not depend on the others of its batch.
            schedule: How many words are drawn in which step: `"cosine"` draws few at first and most at the end,
                `"square"` likewise, `"linear"` as many in each step, `"arccos"` most in the first and the last ones.

        Raises:
            ValueError: If an argument is out of range, an image comes without its mask or the reverse, or the model
                cannot draw from codes alone.
        """
        self._check_generation(num_steps, temperature, top_k, choice_temperature, schedule)
        if isinstance(generator, Sequence) and len(generator) != len(input_ids):
            raise ValueError(
                f"There are {len(generator)} generators for {len(input_ids)} captions; give one for each."
            )
        indices, hidden = self._start(input_ids, pixel_values, bool_masked_pos, num_steps)
        blank = indices.new_zeros(len(indices), 3, *self._size(pixel_values), dtype=self.cbvila.dtype)
        fuses = [self.fusion_with(blank, self._states(input_ids, attention_mask), attention_mask)]
        if guidance_scale != 1:
            fuses.append(self.fusion_with(blank, self._states(self.empty_captions(blank), None), None))
        sample = partial(sample_codes, temperature=temperature, top_k=top_k, generator=generator)
        numbers = [hidden_counts(number, num_steps, schedule) for number in hidden.sum(1).tolist()]
        counts = torch.tensor(numbers, device=indices.device)
        steps = []
        for step in range(num_steps):
            image = self.image_of_codes(indices)
            states = [self.ask_for_codes(fuse, image, hidden)[0].states for fuse in fuses]
            sampled, logits = self._sampled_codes(states, image, guidance_scale, sample)
            confidence = confidence_in(sampled, logits, self.cbvila.quantizer.book_sizes)
            indices = torch.where(hidden if sampled.dim() == 2 else hidden.unsqueeze(-1), sampled, indices)
            noise = choice_temperature * (1 - (step + 1) / num_steps)
            if noise > 0:
                confidence = confidence + noise * gumbel_noise(confidence, generator)
            hidden = least_confident(confidence, hidden, counts[:, step])
            steps.append(CBViLADecodingStep(indices, hidden))
        pixels = self.reconstruct_pixels(blank, fuses[0], self.image_of_codes(indices), None, None)
        return CBViLAGeneratedImages(pixels, indices, tuple(steps))

    def _sampled_codes(
        self, states: list[Tensor], image: EncodedImage, guidance_scale: float, sample: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Returns codes (B, N) or (B, N, books) sampled book by book, and the logits (B, N, ΣK) that they are from.

        Args:
            states: States (B, N, D) under the captions, and under an empty one if there is guidance.
            image: The visual words so far.
            guidance_scale: See [`~CBViLAImageGeneration.generate_images`].
            sample: Samples codes (B, N) from the logits (B, N, K) of a book.
        """
        guided = []

        def choose(logits: Tensor, book: int) -> Tensor:
            captioned, *empty = logits.chunk(len(states))
            for without in empty:
                captioned = without + guidance_scale * (captioned - without)
            guided.append(captioned)
            return sample(captioned).repeat(len(states), 1)

        indices, _ = self.mim.decode(torch.cat(states), image.quantized.codes, choose)
        return indices[: len(states[0])], torch.cat(guided, dim=-1)

    def _start(
        self, input_ids: Tensor, pixel_values: Tensor | None, bool_masked_pos: Tensor | None, num_steps: int
    ) -> tuple[Tensor, Tensor]:
        """Returns the visual words (B, N) or (B, N, books) to start from, and the hidden patches (B, N)."""
        if (pixel_values is None) != (bool_masked_pos is None):
            raise ValueError(
                "To redraw a part of an image give both, pixel_values and bool_masked_pos, which says what part; to "
                "draw from the caption alone give neither."
            )
        quantizer = self.cbvila.require_quantizer()
        if pixel_values is not None:
            self.check_mask(pixel_values, bool_masked_pos)
            indices, hidden = self.tokenize(pixel_values), bool_masked_pos.bool()
            if len(indices) != len(input_ids):
                raise ValueError(f"There are {len(indices)} images and {len(input_ids)} captions; give one for each.")
        else:
            patches = self.config.vision_config.num_patches
            books = len(quantizer.book_sizes)
            shape = (len(input_ids), patches) if books == 1 else (len(input_ids), patches, books)
            indices = torch.zeros(shape, dtype=torch.long, device=self.device)
            hidden = torch.ones(shape[:2], dtype=torch.bool, device=self.device)
        if num_steps > hidden.shape[1]:
            raise ValueError(
                f"num_steps={num_steps} for images of {hidden.shape[1]} patches: each step draws one at least; take "
                "fewer steps."
            )
        return indices, hidden

    def image_of_codes(self, indices: Tensor) -> EncodedImage:
        """Returns visual words (B, N) or (B, N, books) as an encoded image."""
        quantizer = self.cbvila.quantizer
        quantized = quantizer.indices_to_quantized(indices)
        words = CBViLAQuantizerOutput(
            quantized=quantized, detached=quantized, indices=indices, codes=quantizer.head_codes()
        )
        # `len` would make the number of images a constant of an exported program.
        return EncodedImage(quantized.new_zeros(indices.shape[0], quantized.shape[-1]), words)

    def _states(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        return self.cbvila.text_model(input_ids, attention_mask).last_hidden_state

    def _size(self, pixel_values: Tensor | None) -> tuple[int, int]:
        """Returns height and width of the images in pixels."""
        side = self.config.vision_config.image_size
        return (side, side) if pixel_values is None else (pixel_values.shape[-2], pixel_values.shape[-1])

    def _check_generation(
        self, num_steps: int, temperature: float, top_k: int | None, choice_temperature: float, schedule: str
    ) -> None:
        for name, value, least in (
            ("num_steps", num_steps, 1),
            ("temperature", temperature, 0),
            ("top_k", top_k, 1),
            ("choice_temperature", choice_temperature, 0),
        ):
            if value is not None and not value >= least:
                raise ValueError(f"{name}={value} must be at least {least}.")
        if top_k is not None and temperature == 0:
            raise ValueError(f"top_k={top_k} changes nothing: temperature=0 takes the likeliest codes; leave one out.")
        if schedule not in SCHEDULES:
            raise ValueError(f"schedule={schedule!r}: choose one of {', '.join(SCHEDULES)}.")
        self.check_draws_images()

    def check_draws_images(self) -> None:
        """Checks that the model draws images from captions.

        Raises:
            ValueError: If it cannot; the message says why.
        """
        _ = self.mim  # raises if the model has none
        self._check_draws_from_codes_alone()
        if not self.pixel.predicts_visible_patches:
            raise ValueError("This model's pixel head was trained on masked patches alone, and draws no whole images.")
        if self.config.fusion_visual_pos != "learned":
            raise ValueError(
                "This model's visual queries have no positions (fusion_visual_pos='none'), so that all hidden patches "
                "would be equal."
            )
