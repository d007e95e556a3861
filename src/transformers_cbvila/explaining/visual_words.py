"""The visual words that speak for a word, and the words that go with a visual word: by where the words look.

Shapes: N patches, R books, K codes, W words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from ..inspection.code_words import CodeWords
from ..inspection.codebook_report import meaningful_words
from ..inspection.visual_words import collect_visual_words
from ..model.drawn_images_cbvila import to_pictures
from ..model.processing_cbvila import CBViLAProcessor
from .explain import explain_batch
from .explanation import Explanation


def codes_of_image(model: Any, processor: CBViLAProcessor, image: Any) -> np.ndarray:
    """Returns the code indices (N, R) of an image, numbered through all books.

    Raises:
        ValueError: If the model has no codebook.
    """
    model.cbvila.require_quantizer()
    return collect_visual_words(model, processor, [{"image": image}], progress=False).indices[0]


def codes_for_words(explanation: Explanation, codes: np.ndarray, limit: int = 3) -> list[list[tuple[int, float]]]:
    """Returns, for each word, the codes that speak for it: those of the patches where its map is high.

    Args:
        explanation: An explanation of one image.
        codes: (N, R) code indices of the image.
        limit: Number of codes of each word.

    Returns:
        Codes with the share of the word's map that lies on their patches, the greatest first; none with 0.
    """
    found, on_codes = np.unique(codes), []
    for of_word in explanation.maps.reshape(len(explanation.words), -1):
        sums = np.array([of_word[(codes == code).any(axis=1)].sum() for code in found])
        shares = sums / max(float(of_word.sum()), np.finfo(np.float32).tiny)
        order = np.argsort(-shares, kind="stable")[:limit]
        on_codes.append([(int(found[place]), float(shares[place])) for place in order if shares[place] > 0])
    return on_codes


class SharedCode(NamedTuple):
    """A code that two images share: how many patches of each have it, and the first one of each, (p, p, 3) uint8."""

    code: int
    counts: tuple[int, int]
    patches: tuple[np.ndarray, np.ndarray]


class SharedCodes(NamedTuple):
    """The codes that two images share, and the share of their patches that can be paired by them, from 0 to 1."""

    codes: list[SharedCode]
    share: float


def shared_codes(
    model: Any, processor: CBViLAProcessor, image: Any, others: Sequence[Any], limit: int = 5
) -> list[SharedCodes]:
    """Returns what visual words an image shares with others, such as those that were found by it.

    Args:
        model: A model with a codebook.
        processor: Its processor.
        image: The image.
        others: Other images.
        limit: Number of codes of each, those first of which both images have most.

    Raises:
        ValueError: If the model has no codebook.
    """
    model.cbvila.require_quantizer()
    images = [image, *others]
    codes = collect_visual_words(model, processor, [{"image": each} for each in images], progress=False).indices
    patches = [_patches_of(model, processor, each) for each in images]
    return [_shared(codes[[0, row]], [patches[0], patches[row]], limit) for row in range(1, len(images))]


def _patches_of(model: Any, processor: CBViLAProcessor, image: Any) -> np.ndarray:
    """Returns the patches (N, p, p, 3) of an image as the model sees it."""
    side = model.config.vision_config.patch_size
    (seen,) = to_pictures(processor.image_processor, processor(images=[image], return_tensors="pt")["pixel_values"])
    rows, columns = seen.shape[0] // side, seen.shape[1] // side
    grid = seen.reshape(rows, side, columns, side, 3).swapaxes(1, 2)
    return grid.reshape(rows * columns, side, side, 3)


def _shared(codes: np.ndarray, patches: Sequence[np.ndarray], limit: int) -> SharedCodes:
    """Returns what two images share by their codes (2, N, R) and patches (N, p, p, 3) each."""
    both = np.intersect1d(codes[0], codes[1])
    has = np.array([[(of_image == code).any(axis=1) for of_image in codes] for code in both]).reshape(
        -1, *codes.shape[:2]
    )
    counts = has.sum(axis=2)
    paired = counts.min(axis=1)
    found = [
        SharedCode(
            int(both[place]),
            (int(counts[place, 0]), int(counts[place, 1])),
            (patches[0][has[place, 0].argmax()], patches[1][has[place, 1].argmax()]),
        )
        for place in np.argsort(-paired, kind="stable")[:limit].tolist()
    ]
    occurrences = codes.shape[1] * codes.shape[2]
    return SharedCodes(found, float(paired.sum() / occurrences))


def words_for_code(explanation: Explanation, codes: np.ndarray, code: int) -> list[tuple[str, float]]:
    """Returns the words of an explanation that go with a code, the strongest first.

    Args:
        explanation: An explanation of one image.
        codes: (N, R) code indices of the image.
        code: One of them.

    Returns:
        Words with the mean of their map, 0 to 1, over the code's patches.

    Raises:
        ValueError: If no patch of the image has the code.
    """
    patches = (codes == code).any(axis=1)
    if not patches.any():
        raise ValueError(f"code={code}: no patch of the image has it; its codes are {np.unique(codes).tolist()}.")
    means = explanation.maps.reshape(len(explanation.words), -1)[:, patches].mean(axis=1)
    order = np.argsort(-means, kind="stable")
    return [(explanation.words[place], float(means[place])) for place in order.tolist()]


def explained_code_words(
    model: Any,
    processor: CBViLAProcessor,
    rows: Sequence[dict[str, Any]],
    batch_size: int = 32,
    progress: bool = True,
    **options: Any,
) -> CodeWords:
    """Counts how codes and words go together over many images, by where words look instead of by what is in an image.

    [`count_code_words`] counts every patch of an image with a word; here a patch counts by the word's map, so that a
    code is told by the words that look at its patches.

    Args:
        model: A model with a codebook that can be explained, such as a pretrained one.
        processor: Its processor.
        rows: Rows with `image` and `captions`, of which the first is explained.
        batch_size: Images at a time.
        progress: Whether to show progress bars.
        options: `method` and `layer` of [`explain`].

    Raises:
        ValueError: If the model has no codebook, or there are no rows.
    """
    model.cbvila.require_quantizer()
    found = collect_visual_words(model, processor, rows, batch_size, progress)
    words = meaningful_words(found.row_words)
    columns = {word: column for column, word in enumerate(words)}
    together = np.zeros((len(found.counts), len(words)))
    seen = np.zeros(len(words))
    for start in tqdm(range(0, len(rows), batch_size), desc="Explaining", disable=not progress):
        chunk = [rows[row] for row in range(start, min(start + batch_size, len(rows)))]
        images, texts = [row["image"] for row in chunk], [row["captions"][0] for row in chunk]
        for row, explanation in enumerate(explain_batch(model, processor, images, texts, **options), start):
            for word in {word.lower() for word in explanation.words} & columns.keys():
                looks = explanation.map_of(word).ravel()
                for codes in found.indices[row].T:  # one book after the other
                    np.add.at(together[:, columns[word]], codes, looks)
                    seen[columns[word]] += looks.sum()
    return CodeWords(words, together, found.counts.astype(float), seen / found.counts.sum())
