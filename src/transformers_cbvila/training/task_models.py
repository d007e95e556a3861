"""The model that fine-tuning starts from: a head on a pretrained model, at the task's resolution."""

from typing import Any

import torch
from torch import nn

from ..bundled import checkpoint_source, class_of_checkpoint
from ..model.configuration_cbvila import CBViLAConfig
from ..model.modeling_cbvila_vision import interpolate_positions
from ..model.processing_cbvila import CBViLAProcessor
from ..tasks.task import Task


def starting_model(
    task: Task,
    name: str,
    from_scratch: bool = False,
    image_size: int | None = None,
    dropout: float | None = None,
) -> tuple[Any, CBViLAProcessor]:
    """Returns a task's model and processor.

    Args:
        task: The task.
        name: Folder, Hub id, or the name of a bundled checkpoint.
        from_scratch: Whether to take only configuration and tokenizer from it, and random weights.
        image_size: Side of images in pixels; without, the checkpoint's. Positions are interpolated.
        dropout: Of the text and fusion encoders (and of the answer decoder); without, the checkpoint's.

    Raises:
        ValueError: If `image_size` is no multiple of the patch size, or `dropout` no share.
    """
    source = checkpoint_source(name)
    made = task.create(source, from_scratch)
    if made is not None:
        model, processor = made
        if dropout is not None:
            raise ValueError(f"dropout={dropout}: {task.name} trains no text or fusion encoder; leave it out.")
        side = _side(model.config, image_size)
        resize_images(model, side)
        return model, _with_size(processor, side)
    config, processor = CBViLAConfig.from_pretrained(source), CBViLAProcessor.from_pretrained(source)
    if dropout is not None:
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout} must be in [0, 1).")
        for part in (config.text_config, config.multimodal_config):
            part.hidden_dropout_prob = part.attention_probs_dropout_prob = dropout
    task.prepare_config(config)
    side = _side(config, image_size)
    if from_scratch:
        config.vision_config.image_size = side
        model = task.head(config)
    else:
        model = task.head.from_pretrained(source, config=config)
        resize_images(model, side)
    return model, _with_size(processor, side)


def _side(config: Any, image_size: int | None) -> int:
    """Returns the side of images in pixels: the one that is given, or the checkpoint's."""
    side, patch = image_size or config.vision_config.image_size, config.vision_config.patch_size
    if side < 1 or side % patch:
        raise ValueError(f"image_size={side} is no multiple of the patch size, {patch}.")
    return side


def _with_size(processor: Any, side: int) -> Any:
    """Returns a processor that makes images of `side` × `side` pixels."""
    processor.image_processor.size = {"height": side, "width": side}
    return processor


def start_of(task: Task, name: str) -> str:
    """Returns whether a checkpoint was `trained` for the task before, or is only `pretrained`."""
    return "trained" if class_of_checkpoint(checkpoint_source(name)) == task.head.__name__ else "pretrained"


@torch.no_grad()
def resize_images(model: Any, side: int) -> None:
    """Makes a model take images of `side` × `side` pixels; its position table is resized as in ALBEF."""
    vision = model.cbvila.vision_model if hasattr(model, "cbvila") else model.model.vision_tower
    grid = side // vision.config.patch_size
    table = vision.embeddings.position_embeddings
    positions = interpolate_positions(table, (grid, grid)).detach().clone()
    vision.embeddings.position_embeddings = nn.Parameter(positions, requires_grad=table.requires_grad)
    for config in (model.config.vision_config, vision.config, vision.embeddings.config):
        config.image_size = side
