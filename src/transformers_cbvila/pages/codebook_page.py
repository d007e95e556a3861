"""Writes an HTML page, in a single file, that shows what a model's codebook has learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..inspection.code_words import count_code_words
from ..inspection.prototypes import Gathered
from ..inspection.visual_words import (
    VisualWords,
    choose_codes,
    choose_rows,
    collect_visual_words,
    find_patches,
    reconstruct_examples,
)
from ..model.drawn_images_cbvila import to_pictures
from ..model.modeling_cbvila_reconstruction import CBViLAModelWithReconstruction
from ..model.objective_mim_cbvila import CBViLAMIM
from ..model.objective_pixel_cbvila import CBViLAPixel
from ..model.processing_cbvila import CBViLAProcessor
from ..retrieval.encoding import pixel_values_of
from . import codebook_sections as sections
from .code_word_sections import words_section
from .codebook_images import crop_with_neighbours
from .document import html_page
from .prototype_section import prototypes_section

_MASK_RATIO = 0.75
_EXAMPLES, _MAPS, _MOST_USED, _OTHERS, _PATCHES = 16, 12, 16, 8, 16
_PATCHES_A_LINE = 8


def write_codebook_page(
    path: Path | str,
    model: CBViLAModelWithReconstruction,
    processor: CBViLAProcessor,
    rows: Sequence[dict[str, Any]],
    metrics: Mapping[str, float],
    title: str = "Inside a codebook",
    note: str = "",
    seed: int = 0,
    progress: bool = True,
    gathered: Gathered | None = None,
) -> Path:
    """Writes codebook metrics, reconstructions (as Fig. 2), patches and words of codes (as Fig. 3), and maps of codes.

    The page shows at most 28 whole images, and crops of at most 384 more; beside prototypes, at most 128 images.

    Args:
        path: The HTML file; its folder is made if it does not exist.
        model: The model.
        processor: Its processor.
        rows: Rows with `image`, `captions`, of which the first is shown, and, optionally, labels as `keywords`.
        metrics: What [`inspect_pretraining`] measured on these rows and, optionally, [`codebook_report`]; with
            `gathered`, its `metrics()` too.
        title: The title, plain text.
        note: A paragraph below the title, plain text.
        seed: Seed of the sampled images, masks, codes and patches.
        progress: Whether to show a progress bar.
        gathered: What prototypes gather, from [`gather`], to be shown as well. A model that was trained without MIM or
            the pixel loss has a page of these alone.

    Returns:
        The path.

    Raises:
        ValueError: If there are no rows, or the model was trained without MIM or the pixel loss and there is nothing
            else to show.
    """
    untrained = [kind.name for kind in (CBViLAPixel, CBViLAMIM) if kind.name not in model.objectives]
    if untrained and gathered is None:
        raise ValueError(
            f"No page: this model was trained without {' and '.join(untrained)} (weight 0), which the page shows: "
            "train with a weight above 0, or leave the page out."
        )
    body = [sections.note(note)]
    if not untrained:
        body += _codebook_sections(model, processor, rows, metrics, seed, progress)
    if gathered is not None:
        captions = [row["captions"][0] for row in rows]
        body.append(
            prototypes_section(gathered, metrics, lambda row: _model_image(model, processor, rows[row]), captions)
        )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html_page(title, "\n".join(body), "codebook.css"), encoding="utf-8")
    return path


def _codebook_sections(
    model: CBViLAModelWithReconstruction,
    processor: CBViLAProcessor,
    rows: Sequence[dict[str, Any]],
    metrics: Mapping[str, float],
    seed: int,
    progress: bool,
) -> list[str]:
    """Returns the sections about visual words."""
    words = collect_visual_words(model, processor, rows, progress=progress)
    patch_size, code_words = model.config.vision_config.patch_size, count_code_words(words)
    numbers = choose_rows(rows, _EXAMPLES, seed)
    chosen = [rows[row] for row in numbers]
    first = _model_image(model, processor, chosen[0]), chosen[0]["captions"][0]
    examples = reconstruct_examples(model, processor, chosen, _MASK_RATIO, seed)
    return [
        sections.intro_section(words, numbers[0], *first),
        sections.health_section(metrics, words.counts),
        sections.reconstructions_section(examples, _MASK_RATIO),
        sections.codes_section(
            words, _crops(model, processor, rows, words, seed), patch_size, _PATCHES_A_LINE, code_words
        ),
        words_section(code_words, words),
        sections.maps_section(words, _map_images(model, processor, rows, seed + 1)),
    ]


def _crops(
    model: CBViLAModelWithReconstruction,
    processor: CBViLAProcessor,
    rows: Sequence[dict[str, Any]],
    words: VisualWords,
    seed: int,
) -> dict[int, list[np.ndarray]]:
    """Returns patches with their neighbours for each code to show; one image is decoded at a time."""
    crops = {}
    for code in choose_codes(words.counts, _MOST_USED, _OTHERS, seed):
        crops[code] = [
            crop_with_neighbours(
                _model_image(model, processor, rows[row]), patch, model.config.vision_config.patch_size
            )
            for row, patch in find_patches(code, words.indices, _PATCHES, seed)
        ]
    return crops


def _map_images(
    model: CBViLAModelWithReconstruction, processor: CBViLAProcessor, rows: Sequence[dict[str, Any]], seed: int
) -> dict[int, tuple[np.ndarray, str]]:
    chosen = choose_rows(rows, _MAPS, seed)
    return {row: (_model_image(model, processor, rows[row]), rows[row]["captions"][0]) for row in chosen}


def _model_image(model: CBViLAModelWithReconstruction, processor: CBViLAProcessor, row: dict[str, Any]) -> np.ndarray:
    """Returns the image of a row as the model sees it."""
    return to_pictures(processor.image_processor, pixel_values_of(model, processor, [row["image"]]))[0]
