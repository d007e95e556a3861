"""How a task is evaluated, whether by `cbvila evaluate` or during training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .rows import TaskRows


@dataclass
class Evaluation:
    """What an evaluation is told beside model, rows and the task's options.

    Args:
        train_rows: Training rows, which baselines are taken from: the majority answer, and the majority answer to each
            text. Without, the majority is that of the evaluated rows, and there is no other baseline.
        batch_size: Rows per batch.
        seed: Seed of the intervals.
        progress: Whether to show bars.
        folder: Where to keep finished work, of a task that can (`resumes_evaluation`).
        protocol: The protocol by which metrics are to be comparable, if any.
        together: Whether all processes of the group measure together, of a task that can (`shares_evaluation`).
    """

    train_rows: TaskRows | None = None
    batch_size: int = 32
    seed: int = 0
    progress: bool = True
    folder: str | None = None
    protocol: str | None = None
    together: bool = False
