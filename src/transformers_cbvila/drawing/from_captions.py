"""Draws pictures from captions with a pretrained model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image
from tqdm.auto import tqdm

from ..data.masking import generator_for
from ..model.modeling_cbvila_reconstruction import CBViLAModelWithReconstruction
from ..model.processing_cbvila import CBViLAProcessor
from ..retrieval.encoding import evaluating, tokens_of
from .steps import pictures_after_steps


def draw_captions(
    model: CBViLAModelWithReconstruction,
    processor: CBViLAProcessor,
    captions: Sequence[str],
    samples: int = 1,
    seed: int = 0,
    batch_size: int = 16,
    progress: bool = True,
    **options: Any,
) -> list[list[Image.Image]]:
    """Draws pictures from captions.

    Args:
        model: The model.
        processor: Its processor.
        captions: The captions.
        samples: Pictures of each caption.
        seed: Seed; a picture depends on it, on the caption's number and the sample's, not on the batch.
        batch_size: Pictures at a time.
        progress: Whether to show a progress bar.
        options: Arguments of [`~CBViLAForPreTraining.generate_images`], such as `num_steps`.

    Returns:
        The pictures of each caption.

    Raises:
        ValueError: If there are no captions, or an argument is out of range.
    """
    return [
        [steps[-1] for steps in of_caption]
        for of_caption in draw_steps(
            model, processor, captions, samples, seed, batch_size, progress, last_only=True, **options
        )
    ]


def draw_steps(
    model: CBViLAModelWithReconstruction,
    processor: CBViLAProcessor,
    captions: Sequence[str],
    samples: int = 1,
    seed: int = 0,
    batch_size: int = 16,
    progress: bool = True,
    last_only: bool = False,
    **options: Any,
) -> list[list[list[Image.Image]]]:
    """Draws pictures as [`draw_captions`] does, and returns those after each step: by caption, sample and step.

    What a picture shows before the last step at hidden patches is what the model would take by then.
    """
    if not captions or samples < 1 or batch_size < 1:
        raise ValueError(f"{len(captions)} captions, samples={samples}, batch_size={batch_size}: at least 1 of each.")
    wanted = [(number, sample) for number in range(len(captions)) for sample in range(samples)]
    found: list[list[list[Image.Image]]] = [[] for _ in captions]
    for start in tqdm(
        range(0, len(wanted), batch_size), desc="Drawing", disable=not progress or len(wanted) <= batch_size
    ):
        chosen = wanted[start : start + batch_size]
        ids, mask = tokens_of(model, processor, [captions[number] for number, _ in chosen])
        with evaluating(model):
            drawn = model.generate_images(
                ids, mask, generator=[generator_for(seed, *key) for key in chosen], **options
            )
            if last_only:
                pictures = [processor.postprocess(drawn.pixel_values)]
            else:
                pictures = pictures_after_steps(model, processor, drawn, ids, mask)
        for row, (number, _) in enumerate(chosen):
            found[number].append([after_step[row] for after_step in pictures])
    return found
