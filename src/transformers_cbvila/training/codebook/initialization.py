"""K-means initialisation of the codes from features of training images."""

import math
from typing import Any

import torch
from torch import Tensor

from ...data.masking import generator_for
from ...model.quantizer_output_cbvila import CBViLAQuantizerHints
from ..context import TrainingContext
from ..peft import quantizer_of
from ..runs.progress import log_main_process
from ..training_images import image_batches, image_latents

_POINTS_PER_CODE = 16


@torch.no_grad()
def fit_codes(context: TrainingContext, seed: int) -> None:
    """Sets the codes by k-means over latents of training images; leaves the global random state unchanged.

    Every process encodes the same images; process 0 clusters and broadcasts the result.
    """
    quantizer, args = quantizer_of(context.model), context.args
    log_main_process(args, f"Fitting {quantizer.num_codes} codes to features of training images (k-means) ...")
    latents, classes = _collect_latents(context, _POINTS_PER_CODE * max(quantizer.book_sizes), seed)
    images_per_step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    given: dict[str, Any] = {}
    if "token_classes" in quantizer.takes_hints:
        given["hints"] = CBViLAQuantizerHints.of(None if classes is None else classes.flatten())
    quantizer.fit(latents.flatten(0, 1), generator_for(seed), images_per_step / latents.shape[0], **given)


def _collect_latents(context: TrainingContext, points: int, seed: int) -> tuple[Tensor, Tensor | None]:
    """Returns latents (images, N, C) of training images, at least `points` if there are so many, and their classes."""
    latents, classes, seen = list[Tensor](), list[Tensor](), 0
    for images in image_batches(context, seed):
        latents.append(image_latents(context, images.pixel_values))
        classes += [] if images.token_classes is None else [images.token_classes]
        seen += math.prod(latents[-1].shape[:2])
        if seen >= points:
            break
    return torch.cat(latents), torch.cat(classes) if classes else None
