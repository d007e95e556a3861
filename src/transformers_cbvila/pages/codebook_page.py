"""Writes the page that shows what a model's codebook has learned: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..inspection.visual_words import (
    VisualWords,
    choose_codes,
    choose_rows,
    collect_visual_words,
    draw_examples,
    pictures_of,
    places_of,
)
from ..model.modeling_cbvila_reconstruction import CBViLAModelWithReconstruction
from ..model.objective_mim_cbvila import CBViLAMIM
from ..model.objective_pixel_cbvila import CBViLAPixel
from ..model.processing_cbvila import CBViLAProcessor
from ..retrieval.encoding import pixel_values_of
from . import codebook_sections as sections
from .codebook_pictures import crop_with_neighbours
from .document import html_page

_MASK_RATIO = 0.75
_EXAMPLES, _MAPS, _MOST_USED, _OTHERS, _PATCHES = 16, 12, 16, 8, 16
_PATCHES_A_LINE = 8


def write_codebook_page(
    path: Path | str,
    model: CBViLAModelWithReconstruction,
    processor: CBViLAProcessor,
    rows: Sequence[dict[str, Any]],
    figures: Mapping[str, float],
    title: str = "Inside a codebook",
    note: str = "",
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Writes codebook health, drawings from visual words (Fig. 2), patches of codes (Fig. 3) and maps of codes.

    The page has the pictures of at most 28 rows as a whole, and crops of at most 384 more.

    Args:
        path: The HTML file; its folder is made if it isn't there.
        rows: Rows with `image` and `captions`, of which the first is used.
        figures: What [`inspect_pretraining`] measured on these rows.
        title, note: Plain text above the figures.
        seed: Of what is drawn at random: images, masks, codes and patches.

    Returns:
        The path.

    Raises:
        ValueError: If there are no rows, or the model was trained without MIM or the pixel loss, which draw here.
    """
    untrained = [kind.name for kind in (CBViLAPixel, CBViLAMIM) if kind.name not in model.objectives]
    if untrained:
        raise ValueError(
            f"No page: this model was trained without {' and '.join(untrained)} (weight 0), so that nothing learned "
            "to draw it."
        )
    words = collect_visual_words(model, processor, rows, progress=progress)
    patch_size = model.config.vision_config.patch_size
    numbers = choose_rows(rows, _EXAMPLES, seed)
    chosen = [rows[row] for row in numbers]
    first = _picture(model, processor, chosen[0]), chosen[0]["captions"][0]
    examples = draw_examples(model, processor, chosen, _MASK_RATIO, seed)
    body = [
        sections.note(note),
        sections.intro_section(words, numbers[0], *first),
        sections.health_section(figures, words.counts),
        sections.drawings_section(examples, _MASK_RATIO),
        sections.codes_section(words, _crops(model, processor, rows, words, seed), patch_size, _PATCHES_A_LINE),
        sections.maps_section(words, _shown(model, processor, rows, seed + 1)),
    ]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html_page(title, "\n".join(body), "codebook.css"), encoding="utf-8")
    return path


def _crops(model, processor, rows, words: VisualWords, seed: int) -> dict[int, list[np.ndarray]]:
    """For each code that is shown, patches with their neighbours; one image is decoded at a time."""
    crops = {}
    for code in choose_codes(words.counts, _MOST_USED, _OTHERS, seed):
        crops[code] = [
            crop_with_neighbours(_picture(model, processor, rows[row]), patch, model.config.vision_config.patch_size)
            for row, patch in places_of(code, words.indices, _PATCHES, seed)
        ]
    return crops


def _shown(model, processor, rows, seed: int) -> dict[int, tuple[np.ndarray, str]]:
    chosen = choose_rows(rows, _MAPS, seed)
    return {row: (_picture(model, processor, rows[row]), rows[row]["captions"][0]) for row in chosen}


def _picture(model, processor, row: dict[str, Any]) -> np.ndarray:
    """The image of a row as the model sees it."""
    return pictures_of(processor, pixel_values_of(model, processor, [row["image"]]))[0]
