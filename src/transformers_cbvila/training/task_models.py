"""The model that fine-tuning starts from: a head on a pretrained model, at the task's resolution."""

from typing import Any

import torch
from torch import nn

from ..bundled import checkpoint_source
from ..evaluation.task_evaluation import HEADS
from ..model.configuration_cbvila import CBViLAConfig
from ..model.modeling_cbvila_vision import interpolate_positions
from ..model.processing_cbvila import CBViLAProcessor


def starting_model(
    task: str,
    name: str,
    from_scratch: bool = False,
    image_size: int | None = None,
    dropout: float | None = None,
    num_images: int | None = None,
) -> tuple[Any, CBViLAProcessor]:
    """A task's model and processor.

    Args:
        task: `vqa`, `retrieval`, `entailment` or `reasoning`.
        name: Folder, Hub id, or the name of a bundled checkpoint.
        from_scratch: Whether to take only configuration and tokenizer from it, and random weights.
        image_size: Side of images in pixels; without, the checkpoint's. Positions are interpolated.
        dropout: Of the text and fusion encoders (and of the answer decoder); without, the checkpoint's.
        num_images: Images per statement of visual reasoning.

    Raises:
        ValueError: If `image_size` is no multiple of the patch size, or `dropout` no share.
    """
    source, head = checkpoint_source(name), HEADS[task]
    config, processor = CBViLAConfig.from_pretrained(source), CBViLAProcessor.from_pretrained(source)
    if dropout is not None:
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout} must be in [0, 1).")
        for part in (config.text_config, config.multimodal_config):
            part.hidden_dropout_prob = part.attention_probs_dropout_prob = dropout
    if num_images is not None:
        config.num_images = num_images
    side = image_size or config.vision_config.image_size
    if side < 1 or side % config.vision_config.patch_size:
        raise ValueError(f"image_size={side} is no multiple of the patch size, {config.vision_config.patch_size}.")
    if from_scratch:
        config.vision_config.image_size = side
        model = head(config)
    else:
        model = head.from_pretrained(source, config=config)
        resize_images(model, side)
    processor.image_processor.size = {"height": side, "width": side}
    return model, processor


def start_of(task: str, name: str) -> str:
    """Whether a checkpoint was `trained` for the task before, or is only `pretrained`."""
    architectures = CBViLAConfig.from_pretrained(checkpoint_source(name)).architectures or []
    return "trained" if HEADS[task].__name__ in architectures else "pretrained"


@torch.no_grad()
def resize_images(model: Any, side: int) -> None:
    """Makes a model take images of `side` × `side` pixels; its position table is resized as in ALBEF."""
    vision = model.cbvila.vision_model
    grid = side // vision.config.patch_size
    positions = interpolate_positions(vision.embeddings.position_embeddings, (grid, grid))
    vision.embeddings.position_embeddings = nn.Parameter(positions.detach().clone())
    for config in (model.config.vision_config, vision.config, vision.embeddings.config):
        config.image_size = side
