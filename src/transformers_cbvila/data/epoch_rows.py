"""Rows from which training examples are drawn, other ones every epoch."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Dataset

from ..model.image_loading_cbvila import DECODING_ERRORS
from ..model.messages_cbvila import shown_error
from .bad_rows import BadRowError
from .images import undecoded, with_images
from .masking import generator_for


def sample_examples(dataset: Any, seed: int) -> Iterator[dict[str, Any]]:
    """Yields all examples of a training set in an order drawn from `seed`, the same in every process.

    It serves what looks at some examples before training, such as k-means. A stream has its own method (`sample`).
    """
    if hasattr(dataset, "sample"):
        yield from dataset.sample(seed)
        return
    for index in torch.randperm(len(dataset), generator=generator_for(seed)).tolist():
        yield dataset[index]


class EpochRows(Dataset):
    """Rows of a dataset that knows the epoch; a subclass draws an example from a row.

    Draws depend on (seed, epoch, row) only, never on global random state, so that a resumed run draws the same as an
    uninterrupted one.

    Args:
        rows: The rows, as dictionaries.
        seed: Seed of all draws.
    """

    def __init__(self, rows: Sequence[dict[str, Any]], seed: int = 0) -> None:
        self.rows = undecoded(rows)
        self.seed = seed
        # in shared memory, so that loader workers see the epoch that the trainer's process sets
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch that the next examples belong to."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, index: int) -> dict[str, Any]:
        """Returns a row whose `image`, or each of whose `images`, is decoded to RGB.

        Raises:
            IndexError: If there is no such row.
            ValueError: If the row cannot be read, or has no image; the message names it.
        """
        origin = f"Row {index}"
        try:
            row = self.rows[index]
        except (IndexError, BadRowError):
            raise
        except (*DECODING_ERRORS, Image.DecompressionBombError) as error:  # rows that decode their images themselves
            raise ValueError(f"{origin} cannot be read ({shown_error(error)}); leave it out.") from error
        return with_images(row, row.get("origin") or origin)

    def generator(self, index: int) -> torch.Generator:
        """Returns the generator of a row's draws in this epoch."""
        return generator_for(self.seed, int(self._epoch), index)
