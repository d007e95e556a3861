"""Label maps from a segmentation model of the Hub, through transformers' pipeline."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from ..model.messages_cbvila import shown_error

_UNKNOWN = -1


class Segmenter:
    """A model of the task "image-segmentation" (semantic, instance or panoptic), which is loaded at first use.

    Each loader worker loads its own, on the CPU.

    Args:
        name: Folder or Hub id.

    Raises:
        ValueError: When it is used, if it cannot be loaded.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._pipeline: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Returns the state for a loader worker, without the model."""
        return {**self.__dict__, "_pipeline": None}

    def __call__(self, image: Image.Image) -> Image.Image:
        """Returns the label map of an RGB image, of mode "I": classes of the model, -1 where it finds none.

        Where segments overlap, the one with the highest score counts.
        """
        segment = self.load()
        numbers = {name: int(number) for number, name in segment.model.config.id2label.items()}
        classes = np.full(image.size[::-1], _UNKNOWN, dtype=np.int32)
        for found in sorted(segment(image), key=lambda part: part["score"] or 0.0):
            classes[np.asarray(found["mask"]) > 0] = numbers[found["label"]]
        return Image.fromarray(classes)

    def load(self) -> Any:
        """Loads the model, unless it is there already, and returns its pipeline."""
        if self._pipeline is None:
            from transformers import pipeline  # which imports much: only where it is used

            try:
                self._pipeline = pipeline("image-segmentation", model=self.name, device="cpu")
            except (OSError, ValueError, KeyError, ImportError) as error:
                raise ValueError(
                    f"label_model={self.name!r} cannot be loaded ({shown_error(error)}): name the folder or Hub id of "
                    "a segmentation model, such as nvidia/segformer-b0-finetuned-ade-512-512."
                ) from error
        return self._pipeline
