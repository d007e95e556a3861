"""The visual words of a picture, what they mean, and what is left of the picture in them.

Shapes: N patches, K codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ..data.masking import generator_for, mask_patches
from ..explaining.explain import explain
from ..explaining.explanation import Explanation
from ..explaining.visual_words import codes_of_image
from ..inspection.code_words import CodeWords, count_code_words
from ..inspection.row_words import words_of
from ..inspection.visual_words import (
    VisualWords,
    collect_visual_words,
    find_patches,
    hide_patches,
)
from ..model.drawn_images_cbvila import to_pictures
from ..model.objective_mim_cbvila import CBViLAMIM
from ..model.objective_pixel_cbvila import CBViLAPixel
from ..retrieval.encoding import evaluating, pixel_values_of, tokens_of
from .models import Loaded
from .pictures import Pictures

_WORDS, _PATCHES, _MOST_PICTURES = 3, 8, 240
_HIDDEN = 0.75  # share of the patches that are hidden and guessed, as in pretraining


@dataclass
class VisualWord:
    """A visual word of a picture.

    Attributes:
        code: Its number.
        share: Share of all patches of the pictures that have it.
        words: Words of captions that go with it, the most telling first.
        patches: Patches of other pictures that have it.
    """

    code: int
    share: float
    words: list[str]
    patches: list[Image.Image]


@dataclass
class Rebuilt:
    """What is rebuilt from visual words; pictures are (H, W, 3) uint8.

    Attributes:
        from_words: From all visual words of the picture.
        masked: The picture with hidden patches in grey.
        guessed: From the visual words that are not hidden, and those that the model guesses for the others.
        hidden: Share of the patches that are hidden.
    """

    from_words: np.ndarray
    masked: np.ndarray
    guessed: np.ndarray
    hidden: float


@dataclass
class Look:
    """What is inside a picture.

    Attributes:
        image: (H, W, 3) the picture as the model sees it, uint8.
        codes: (rows, columns) visual words of the patches; of several books the first one's.
        words: The visual words that occur, by their number.
        rebuilt: What is rebuilt from its visual words; None where the model cannot.
        explanation: Where the words of the caption look; None without a caption.
    """

    image: np.ndarray
    codes: np.ndarray
    words: dict[int, VisualWord]
    rebuilt: Rebuilt | None
    explanation: Explanation | None


class Looking:
    """Looks inside pictures.

    Args:
        loaded: A pretrained model with a codebook.
        pictures: Pictures in which visual words are looked up.
    """

    def __init__(self, loaded: Loaded, pictures: Pictures) -> None:
        self.loaded, self.pictures = loaded, pictures

    @property
    def num_codes(self) -> int:
        """Number of visual words that the model has."""
        return self.loaded.model.cbvila.quantizer.num_codes

    def look(self, image: Image.Image | None, caption: str = "") -> Look:
        """Looks inside a picture.

        Args:
            image: The picture.
            caption: What it shows; may be empty.

        Raises:
            ValueError: If there is no picture.
        """
        if image is None:
            raise ValueError("Choose a picture, or drop one of your own.")
        model, processor = self.loaded.model, self.loaded.processor
        pixel_values = pixel_values_of(model, processor, [image])
        codes = codes_of_image(model, processor, image)[:, 0].reshape(model.patch_grid(pixel_values))
        is_explained = bool(words_of(caption)) and model.config.needs("hard_negatives")
        return Look(
            image=to_pictures(processor.image_processor, pixel_values)[0],
            codes=codes,
            words={int(code): self._word(int(code)) for code in np.unique(codes)},
            rebuilt=self._rebuilt(pixel_values, caption) if self._rebuilds() else None,
            explanation=explain(model, processor, image, caption) if is_explained else None,
        )

    def _rebuilt(self, pixel_values: Tensor, caption: str) -> Rebuilt:
        model, processor = self.loaded.model, self.loaded.processor
        text = tokens_of(model, processor, [caption]) if caption.strip() else (None, None)
        hidden = mask_patches(int(np.prod(model.patch_grid(pixel_values))), generator_for(0), _HIDDEN).unsqueeze(0)
        with evaluating(model):
            whole = model.reconstruct(pixel_values, *text).pixel_values
            guessed = model.reconstruct(pixel_values, *text, hidden.to(model.device)).pixel_values
        image, side = to_pictures(processor.image_processor, pixel_values), model.config.vision_config.patch_size
        return Rebuilt(
            to_pictures(processor.image_processor, whole)[0],
            hide_patches(image, hidden.numpy(), side)[0],
            to_pictures(processor.image_processor, guessed)[0],
            float(hidden.float().mean()),
        )

    def _rebuilds(self) -> bool:
        active = self.loaded.model.config.active_objectives()
        return CBViLAMIM.name in active and CBViLAPixel.name in active

    def _word(self, code: int) -> VisualWord:
        found = self._found
        words = [] if self._code_words is None else self._code_words.of_code(code, _WORDS)
        places = find_patches(code, found.indices, _PATCHES)
        return VisualWord(
            code,
            float(found.counts[code] / found.counts.sum()),
            [word for word, _, _ in words],
            [self._patch(picture, patch) for picture, patch in places],
        )

    def _patch(self, picture: int, patch: int) -> Image.Image:
        row, column = divmod(patch, self._found.grid[1])
        side = self.loaded.model.config.vision_config.patch_size
        return self._seen[picture].crop((column * side, row * side, (column + 1) * side, (row + 1) * side))

    @cached_property
    def _rows(self) -> Sequence[dict[str, Any]]:
        return Pictures(self.pictures.items[:_MOST_PICTURES]).rows()

    @cached_property
    def _found(self) -> VisualWords:
        return collect_visual_words(self.loaded.model, self.loaded.processor, self._rows, progress=False)

    @cached_property
    def _code_words(self) -> CodeWords | None:
        """How codes and words go together; None where pictures have no captions."""
        return count_code_words(self._found) if any(row["captions"] for row in self._rows) else None

    @cached_property
    def _seen(self) -> _SeenPictures:
        return _SeenPictures(self.loaded, self._rows)


class _SeenPictures:
    """Pictures as the model sees them, each made when it is asked for."""

    def __init__(self, loaded: Loaded, rows: Sequence[dict[str, Any]]) -> None:
        self._loaded, self._rows = loaded, rows
        self._made: dict[int, Image.Image] = {}

    def __getitem__(self, number: int) -> Image.Image:
        if number not in self._made:
            pixel_values = pixel_values_of(self._loaded.model, self._loaded.processor, [self._rows[number]["image"]])
            (self._made[number],) = self._loaded.processor.postprocess(pixel_values)
        return self._made[number]
