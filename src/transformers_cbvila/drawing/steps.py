"""A picture as it is drawn: after each step, with the patches that are not settled yet.

Shapes: N patches, in rows and columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from ..data.masking import generator_for
from ..model.modeling_cbvila_image_generation import CBViLAGeneratedImages
from ..model.modeling_cbvila_reconstruction import CBViLAModelWithReconstruction
from ..model.processing_cbvila import CBViLAProcessor
from ..retrieval.encoding import evaluating, pixel_values_of, tokens_of


class DrawnStep(NamedTuple):
    """A picture after a step.

    Args:
        picture: The picture; at hidden patches it shows what the model would take by then.
        hidden: (rows, columns) bool, patches that are not settled yet.
    """

    picture: Image.Image
    hidden: np.ndarray


def draw_in_steps(
    model: CBViLAModelWithReconstruction,
    processor: CBViLAProcessor,
    caption: str,
    image: Any = None,
    part: Sequence[int] | float | None = None,
    seed: int = 0,
    sample: int = 0,
    **options: Any,
) -> list[DrawnStep]:
    """Draws a picture from a caption, or redraws a part of one.

    Args:
        model: The model.
        processor: Its processor.
        caption: The caption.
        image: A picture of which a part is redrawn; the other patches keep their visual words.
        part: Numbers of the patches to redraw, row by row from 0; or a share of them, a float above 0 and at most 1:
            other patches in each sample, and at least one.
        seed: Seed; without an image, the picture is that of [`draw_captions`] for its first caption.
        sample: Number of the sample, counted from 0.
        options: Arguments of [`~CBViLAForPreTraining.generate_images`], such as `num_steps`.

    Returns:
        The picture after each step.

    Raises:
        ValueError: If an image comes without a part or the reverse, a patch is not in the image, or the share or an
            argument of `generate_images` is out of range.
    """
    if (image is None) != (part is None) or (isinstance(part, Sequence) and len(part) == 0):
        raise ValueError("To redraw a part of a picture, give the picture and at least one patch of it.")
    ids, attention_mask = tokens_of(model, processor, [caption])
    given: dict[str, Any] = {}
    grid = (model.config.vision_config.image_size // model.config.vision_config.patch_size,) * 2
    with evaluating(model):
        if part is not None:
            pixel_values = pixel_values_of(model, processor, [image])
            grid = model.patch_grid(pixel_values)
            number = grid[0] * grid[1]
            redrawn = _share(part, number, seed, sample) if isinstance(part, float) else part
            given = {"pixel_values": pixel_values, "bool_masked_pos": _mask(redrawn, number).to(model.device)}
        drawn = model.generate_images(
            ids, attention_mask, **given, generator=[generator_for(seed, 0, sample)], **options
        )
        pictures = pictures_after_steps(model, processor, drawn, ids, attention_mask, grid)
    return [
        DrawnStep(picture, step.bool_masked_pos[0].view(grid).cpu().numpy())
        for (picture,), step in zip(pictures, drawn.steps, strict=True)
    ]


def pictures_after_steps(
    model: CBViLAModelWithReconstruction,
    processor: CBViLAProcessor,
    drawn: CBViLAGeneratedImages,
    ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    grid: tuple[int, int] | None = None,
) -> list[list[Image.Image]]:
    """Returns the pictures of a batch of captions (B, L) after each step: by step and caption.

    Args:
        model: The model, in evaluation mode.
        processor: Its processor.
        drawn: What the model drew.
        ids: (B, L) the captions.
        attention_mask: (B, L), 0 on padding.
        grid: Rows and columns of patches; those of the model's image size by default.
    """
    before = [model.detokenize(step.codebook_indices, ids, attention_mask, grid=grid) for step in drawn.steps[:-1]]
    return [processor.postprocess(pixel_values) for pixel_values in (*before, drawn.pixel_values)]


def _share(share: float, number: int, seed: int, sample: int) -> list[int]:
    """Returns a share of the numbers below `number`, others for each sample."""
    if not 0 < share <= 1:
        raise ValueError(f"part={share} must be above 0 and at most 1 as a share of the patches.")
    # a key of its own: what is drawn has (seed, 0, sample)
    order = torch.randperm(number, generator=generator_for(seed, 1, sample))
    return order[: max(1, round(share * number))].tolist()


def _mask(part: Sequence[int], number: int) -> torch.Tensor:
    """Returns (1, N) bool, true at the patches of the part."""
    check_patches(part, number)
    mask = torch.zeros(1, number, dtype=torch.bool)
    mask[0, list(part)] = True
    return mask


def check_patches(part: Iterable[int], number: int) -> None:
    """Raises a ValueError unless patches are of those that an image has, numbered row by row from 0."""
    for patch in part:
        if not 0 <= patch < number:
            raise ValueError(f"There is no patch {patch}: the picture has {number}, numbered from 0.")
