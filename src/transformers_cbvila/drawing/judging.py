"""How often pictures of scenes show what their captions say, as a parser of pixels sees them, not a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..data.scenes.caption_truth import is_true
from ..data.scenes.seeing import seen_objects
from ..metrics.intervals import mean_with_interval


def judge_drawings(pictures: Sequence[Image.Image], captions: Sequence[str], seed: int = 0) -> dict[str, float]:
    """Judges pictures drawn from captions of scenes.

    Args:
        pictures: M pictures of M captions.
        captions: The captions.
        seed: Seed of the bootstrap interval.

    Returns:
        `drawn_true`, the share of pictures of which everything is true that their caption says (colours, shapes,
        sizes, numbers and relations), with `_low` and `_high`, and as `_floor` the share of which the next picture's
        caption is true; `drawn_objects`, the mean number of objects.

    Raises:
        ValueError: If there are no pictures, or there is not a caption for each.
    """
    if not pictures or len(pictures) != len(captions):
        raise ValueError(f"{len(pictures)} pictures and {len(captions)} captions; give a caption for each, and some.")
    seen = [seen_objects(picture) for picture in pictures]
    true, floor = (
        np.array([is_true(caption, objects, picture.width) for caption, objects, picture in rows], dtype=float)
        for rows in (
            zip(captions, seen, pictures, strict=True),
            zip([*captions[1:], captions[0]], seen, pictures, strict=True),
        )
    )
    return {
        **mean_with_interval("drawn_true", true, seed),
        "drawn_true_floor": float(floor.mean()),
        "drawn_objects": float(np.mean([len(objects) for objects in seen])),
    }
