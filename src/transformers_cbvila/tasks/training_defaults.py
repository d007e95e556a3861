"""What training of a task is like where no option, recipe or protocol says it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TrainingDefaults:
    """What a task's recipes have in common; `training/task_defaults.py` derives options from it.

    Attributes:
        new_parts: What is new in the head of a pretrained checkpoint, which is why tasks want other rates.
        narrow_rate: Learning rate of the recipe at width 128.
        wide_rate: Learning rate of the recipe at width 768.
        batch_size: Rows per step, over all processes.
        passes: Over the data, as ALBEF.
        least_steps: Steps that the recipe of width 128 takes; fewer have not learned the task.
        views: What training sees of images, with the reason of each.
        hardening: `negative_hardening`, of a task that draws negatives.
    """

    new_parts: str
    narrow_rate: float
    wide_rate: float
    batch_size: int
    passes: int
    least_steps: int
    views: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    hardening: str | None = None


CROPS_AND_FLIPS: Mapping[str, tuple[Any, str]] = {
    "crop_scale": (0.5, "random crops of half the picture or more, as ALBEF"),
    "flip": (True, "images are mirrored: texts hardly say left or right"),
}
