"""Reconstructions of held-out images in TensorBoard and Trackio, where a run reports to them."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
from transformers import Trainer
from transformers.integrations import TensorBoardCallback, TrackioCallback

from ..inspection.visual_words import ReconstructionExample, choose_rows, reconstruct_examples
from ..model.modeling_cbvila_pretraining import CBViLAForPreTraining
from ..model.objective_mim_cbvila import CBViLAMIM
from ..model.objective_pixel_cbvila import CBViLAPixel
from ..model.processing_cbvila import CBViLAProcessor
from .peft import base_model

_IMAGES = 8


def log_reconstructions(trainer: Trainer, rows: Sequence[dict[str, Any]], tag: str) -> None:
    """Adds an image of reconstructions to what TensorBoard and Trackio show of the run.

    Nothing happens where it reports to neither, or for a model that cannot reconstruct.

    Args:
        trainer: The trainer of a pretraining model.
        rows: Rows with `image` and `captions`.
        tag: The image's name.
    """
    writers = list(_writers(trainer))
    model: CBViLAForPreTraining = base_model(trainer.accelerator.unwrap_model(trainer.model))
    if not writers or not {CBViLAMIM.name, CBViLAPixel.name} <= set(getattr(model, "objectives", ())):
        return
    processor: Any = trainer.processing_class
    image = reconstruction_grid(model, processor, rows)
    for write in writers:
        write(tag, image)


def _writers(trainer: Trainer) -> Iterator[Callable[[str, np.ndarray], None]]:
    """Yields a function for each tracker that writes an image (H, W, 3) by its name."""
    step = trainer.state.global_step
    for found in trainer.callback_handler.callbacks:
        if isinstance(found, TensorBoardCallback) and found.tb_writer:
            yield partial(_to_tensorboard, found.tb_writer, step)
        elif isinstance(found, TrackioCallback) and trainer.state.is_world_process_zero:
            yield partial(_to_trackio, import_module("trackio"), step)


def _to_tensorboard(writer: Any, step: int, tag: str, image: np.ndarray) -> None:
    writer.add_image(tag, image, step, dataformats="HWC")


def _to_trackio(trackio: Any, step: int, tag: str, image: np.ndarray) -> None:
    trackio.log({tag: trackio.Image(image), "train/global_step": step})


def reconstruction_grid(
    model: CBViLAForPreTraining, processor: CBViLAProcessor, rows: Sequence[dict[str, Any]]
) -> np.ndarray:
    """Returns one image (H, W, 3): a row per example with the original, from its codes, masked, and from MIM's."""
    chosen = [rows[i] for i in choose_rows(rows, _IMAGES)]
    return np.concatenate([_side_by_side(example) for example in reconstruct_examples(model, processor, chosen)])


def _side_by_side(example: ReconstructionExample) -> np.ndarray:
    return np.concatenate([example.image, example.reconstructed, example.masked, example.predicted], axis=1)
