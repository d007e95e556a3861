"""Classes of objects in label maps: the ground is class 0, and each kind (colour and shape) has one from 1 on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .drawing import SCREEN_LABEL, label_map
from .scene import Scene
from .words import KINDS, Kind


def classes_of_objects(objects: Sequence[Mapping[str, Any]]) -> list[int] | None:
    """Returns the class of each value of a label map whose i-th object has the value i; the ground is first.

    Args:
        objects: Records with `shape` and `colour`, as rows of scenes have them.

    Returns:
        The classes; `None` if there are no records, or not those of scenes.
    """
    if not objects:
        return None
    try:
        return [0, *(1 + KINDS.index(Kind(item["colour"], item["shape"])) for item in objects)]
    except (KeyError, TypeError, ValueError):
        return None


def kind_map(scene: Scene, size: int) -> np.ndarray:
    """Returns the class of each pixel of a scene, `uint8` of shape (size, size); 255 is a screen."""
    classes = np.full(256, SCREEN_LABEL, dtype=np.uint8)
    known = classes_of_objects([item.record() for item in scene.objects]) or [0]
    classes[: len(known)] = known
    return classes[label_map(scene, size)]
