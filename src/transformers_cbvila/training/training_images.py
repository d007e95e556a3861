"""Training images read besides training on them: the same on every process, without effect on the data set."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..data.epoch_rows import sample_examples
from ..model.modeling_cbvila_vision import tokens_to_quantize
from ..model.quantizer_output_cbvila import CBViLAQuantizerHints
from .context import TrainingContext
from .fsdp import latents_of_sharded

_ROWS_AT_ONCE = 16  # whatever the batch size and the number of processes, so that rounding does not depend on them


class TrainingImages(NamedTuple):
    """Images of the training set.

    Args:
        pixel_values: (B, 3, H, W).
        token_classes: (B, N) the classes of their patches, if the data have any.
    """

    pixel_values: Tensor
    token_classes: Tensor | None = None

    @property
    def hints(self) -> CBViLAQuantizerHints | None:
        """Additional inputs of a quantizer."""
        return CBViLAQuantizerHints.of(self.token_classes)


def image_batches(context: TrainingContext, seed: int) -> Iterator[TrainingImages]:
    """Yields up to 16 images of the training set at a time, on the device of this process.

    Process 0 reads them and sends them to the others. Rows come in an order drawn from the seed alone; a data set
    without length (a stream) is read from its first row, on a copy, so that training reads the same rows as without.
    """
    args, collate = context.args, context.data_collator
    examples = _rows(context.train_dataset, seed) if args.process_index == 0 else iter(())
    while True:
        rows = list(islice(examples, _ROWS_AT_ONCE))
        batch = collate(rows) if rows else {}
        images, classes = (
            _from_first_process(batch.get(name), args.device, args.world_size) for name in TrainingImages._fields
        )
        if images is None:
            return
        yield TrainingImages(images, classes)


@torch.no_grad()
def image_latents(
    context: TrainingContext,
    pixel_values: Tensor,
    vision_model: nn.Module | None = None,
    modules: Mapping[str, nn.Module] | None = None,
) -> Tensor:
    """Returns the latents (B, N, C) that are compared with codes, in training precision but evaluation mode.

    `vision_model`, and `modules` of the quantizer, replace the model's own, for example by their moving averages.
    """
    accelerator, model = context.accelerator, context.model
    pixel_values = pixel_values.to(context.args.device)
    if getattr(accelerator, "is_fsdp2", False):
        with _evaluating(model), accelerator.autocast():
            return latents_of_sharded(model, pixel_values)
    quantizer = model.cbvila.quantizer
    vision_model = model.cbvila.vision_model if vision_model is None else vision_model
    with _evaluating(vision_model), _evaluating(quantizer), accelerator.autocast():
        return quantizer.encode(tokens_to_quantize(vision_model(pixel_values)), modules)


def _rows(dataset: Any, seed: int) -> Iterator[Any]:
    if hasattr(dataset, "sample") or hasattr(dataset, "__len__"):
        return sample_examples(dataset, seed)
    return iter(copy.deepcopy(dataset))


def _from_first_process(tensor: Tensor | None, device: torch.device, world_size: int) -> Tensor | None:
    if world_size == 1:
        return None if tensor is None else tensor.to(device)
    header: list[Any] = [None if tensor is None else (tensor.shape, tensor.dtype)]
    dist.broadcast_object_list(header, src=0, device=device)
    if header[0] is None:
        return None
    shape, dtype = header[0]
    tensor = torch.empty(shape, dtype=dtype, device=device) if tensor is None else tensor.to(device).contiguous()
    dist.broadcast(tensor, src=0)
    return tensor


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Puts a module into evaluation mode, and every part back into its own mode at the end."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
