"""Images to look at besides training on them: the same on every process, and without a trace in the training data."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..data.epoch_rows import sample_examples
from .fsdp import latents_of_sharded

_ROWS_AT_ONCE = 16  # whatever the batch size and the number of processes, so that rounding does not depend on them


def image_batches(trainer, seed: int) -> Iterator[Tensor]:
    """Images (up to 16, 3, H, W) of the training set, on the trainer's device.

    Process 0 reads them and gives them to the others. Rows come in an order drawn from the seed alone; a data set
    without length (a stream) begins at its first row, on a copy, so that training reads what it would have read.
    """
    examples = _rows(trainer.train_dataset, seed) if trainer.args.process_index == 0 else iter(())
    while True:
        rows = list(islice(examples, _ROWS_AT_ONCE))
        images = _from_first_process(trainer.data_collator(rows)["pixel_values"] if rows else None, trainer)
        if images is None:
            return
        yield images


@torch.no_grad()
def image_latents(
    trainer,
    pixel_values: Tensor,
    vision_model: nn.Module | None = None,
    modules: Mapping[str, nn.Module] | None = None,
) -> Tensor:
    """Latents (B, N, C) that the codebook compares with its codes, in training precision but in evaluation mode.

    `vision_model`, and `modules` of the quantizer, replace the model's own, for example by their moving averages.
    """
    if getattr(trainer.accelerator, "is_fsdp2", False):
        with _evaluating(trainer.unwrapped_model), trainer.accelerator.autocast():
            return latents_of_sharded(trainer.unwrapped_model, pixel_values.to(trainer.args.device))
    model = trainer.unwrapped_model.cbvila
    vision_model = model.vision_model if vision_model is None else vision_model
    with _evaluating(vision_model), _evaluating(model.quantizer), trainer.accelerator.autocast():
        tokens = vision_model(pixel_values.to(trainer.args.device)).last_hidden_state[:, 1:]
        return model.quantizer.encode(tokens, modules)


def _rows(dataset, seed: int) -> Iterator[Any]:
    if hasattr(dataset, "sample") or hasattr(dataset, "__len__"):
        return sample_examples(dataset, seed)
    return iter(copy.deepcopy(dataset))


def _from_first_process(images: Tensor | None, trainer) -> Tensor | None:
    device = trainer.args.device
    if trainer.args.world_size == 1:
        return None if images is None else images.to(device)
    about: list[Any] = [None if images is None else (images.shape, images.dtype)]
    dist.broadcast_object_list(about, src=0, device=device)
    if about[0] is None:
        return None
    shape, dtype = about[0]
    images = torch.empty(shape, dtype=dtype, device=device) if images is None else images.to(device).contiguous()
    dist.broadcast(images, src=0)
    return images


@contextmanager
def _evaluating(module: nn.Module):
    """Evaluation mode inside; outside, every part is in the mode that it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
