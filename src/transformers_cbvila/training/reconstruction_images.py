"""Reconstructions of held-out images in TensorBoard, where a run reports to it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import Trainer
from transformers.integrations import TensorBoardCallback

from ..inspection.visual_words import ReconstructionExample, choose_rows, reconstruct_examples
from ..model.modeling_cbvila_pretraining import CBViLAForPreTraining
from ..model.objective_mim_cbvila import CBViLAMIM
from ..model.objective_pixel_cbvila import CBViLAPixel
from ..model.processing_cbvila import CBViLAProcessor
from .peft import base_model

_IMAGES = 8


def log_reconstructions(trainer: Trainer, rows: Sequence[dict[str, Any]], tag: str) -> None:
    """Adds an image of reconstructions to every TensorBoard writer that the trainer has.

    Nothing happens without one, or for a model that cannot reconstruct.

    Args:
        trainer: The trainer of a pretraining model.
        rows: Rows with `image` and `captions`.
        tag: The image's name in TensorBoard.
    """
    callbacks = trainer.callback_handler.callbacks
    writers = [found.tb_writer for found in callbacks if isinstance(found, TensorBoardCallback) and found.tb_writer]
    model: CBViLAForPreTraining = base_model(trainer.accelerator.unwrap_model(trainer.model))
    if not writers or not {CBViLAMIM.name, CBViLAPixel.name} <= set(getattr(model, "objectives", ())):
        return
    processor: Any = trainer.processing_class
    image = reconstruction_grid(model, processor, rows)
    for writer in writers:
        writer.add_image(tag, image, trainer.state.global_step, dataformats="HWC")


def reconstruction_grid(
    model: CBViLAForPreTraining, processor: CBViLAProcessor, rows: Sequence[dict[str, Any]]
) -> np.ndarray:
    """Returns one image (H, W, 3): a row per example with the original, from its codes, masked, and from MIM's."""
    chosen = [rows[i] for i in choose_rows(rows, _IMAGES)]
    return np.concatenate([_side_by_side(example) for example in reconstruct_examples(model, processor, chosen)])


def _side_by_side(example: ReconstructionExample) -> np.ndarray:
    return np.concatenate([example.image, example.reconstructed, example.masked, example.predicted], axis=1)
