"""Training examples of downstream tasks: rows whose images are seen another way every epoch."""

from collections.abc import Sequence
from typing import Any

from .epoch_rows import EpochRows
from .image_views import ImageViews
from .pairs import PairDraws
from .row_items import RowItems


class ViewedRows(EpochRows):
    """Rows as they are but for their `image`, or each of their `images`, of which a view is drawn every epoch.

    Args:
        rows: Rows with `image` (PIL) or `images` (a list), and anything else.
        seed: Seed of all draws.
        views: What is seen of images; without, all of them.
    """

    def __init__(self, rows: Sequence[dict[str, Any]], seed: int = 0, views: ImageViews | None = None) -> None:
        super().__init__(rows, seed)
        self.views = views or ImageViews()

    def __getitem__(self, index: int) -> dict[str, Any]:
        row, generator = self.row(index), self.generator(index)
        if "images" in row:
            return {**row, "images": [self.views.draw(image, generator) for image in row["images"]]}
        return {**row, "image": self.views.draw(row["image"], generator)}


class CaptionedImages(RowItems):
    """One example for every caption of every image, so that a pass sees them all, as in ALBEF's fine-tuning.

    An example has the form of those of [`ImageTextPairs`]: equal images have equal ids, and it knows the other
    captions of its image.

    Args:
        rows: Rows with `image` (PIL) and `captions` (list of strings).
        captions: How many captions each row has; without, all rows are read to count them.
        seed: Seed of all draws.
        views: What is seen of images; without, all of them.
    """

    def __init__(
        self,
        rows: Sequence[dict[str, Any]],
        captions: Sequence[int] | None = None,
        seed: int = 0,
        views: ImageViews | None = None,
    ) -> None:
        super().__init__(rows, [len(row["captions"]) for row in rows] if captions is None else captions, seed)
        self.draws = PairDraws(views or ImageViews())

    def __getitem__(self, index: int) -> dict[str, Any]:
        row, caption = self.place(index)
        return self.draws.draw(self.row(row), self.generator(index), caption)
