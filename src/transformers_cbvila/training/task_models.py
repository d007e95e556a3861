"""The model that fine-tuning starts from: a head on a pretrained model, at the task's resolution."""

from typing import Any

import torch
from torch import nn

from ..bundled import checkpoint_source
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
    config, processor = CBViLAConfig.from_pretrained(source), CBViLAProcessor.from_pretrained(source)
    if dropout is not None:
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout} must be in [0, 1).")
        for part in (config.text_config, config.multimodal_config):
            part.hidden_dropout_prob = part.attention_probs_dropout_prob = dropout
    task.prepare_config(config)
    side = image_size or config.vision_config.image_size
    if side < 1 or side % config.vision_config.patch_size:
        raise ValueError(f"image_size={side} is no multiple of the patch size, {config.vision_config.patch_size}.")
    if from_scratch:
        config.vision_config.image_size = side
        model = task.head(config)
    else:
        model = task.head.from_pretrained(source, config=config)
        resize_images(model, side)
    processor.image_processor.size = {"height": side, "width": side}
    return model, processor


def start_of(task: Task, name: str) -> str:
    """Returns whether a checkpoint was `trained` for the task before, or is only `pretrained`."""
    architectures = CBViLAConfig.from_pretrained(checkpoint_source(name)).architectures or []
    return "trained" if task.head.__name__ in architectures else "pretrained"


@torch.no_grad()
def resize_images(model: Any, side: int) -> None:
    """Makes a model take images of `side` × `side` pixels; its position table is resized as in ALBEF."""
    vision = model.cbvila.vision_model
    grid = side // vision.config.patch_size
    positions = interpolate_positions(vision.embeddings.position_embeddings, (grid, grid))
    vision.embeddings.position_embeddings = nn.Parameter(positions.detach().clone())
    for config in (model.config.vision_config, vision.config, vision.embeddings.config):
        config.image_size = side
