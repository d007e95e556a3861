"""K-means initialisation of the codes from features of training images."""

import math

import torch
from torch import Tensor

from ...data.masking import generator_for
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
    latents = _collect_latents(context, _POINTS_PER_CODE * max(quantizer.book_sizes), seed)
    images_per_step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    quantizer.fit(latents.flatten(0, 1), generator_for(seed), images_per_step / latents.shape[0])


def _collect_latents(context: TrainingContext, points: int, seed: int) -> Tensor:
    """Returns latents (images, N, C) of training images, at least `points` of them if there are so many."""
    latents, seen = [], 0
    for images in image_batches(context, seed):
        latents.append(image_latents(context, images))
        seen += math.prod(latents[-1].shape[:2])
        if seen >= points:
            break
    return torch.cat(latents)
