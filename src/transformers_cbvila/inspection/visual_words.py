"""Collects the visual words of images: how often codes are used, where, and what is reconstructed from them.

Images are uint8 arrays (H, W, 3) as the model sees them: resized and cropped by its image processor.

Shapes: M rows, B batch, N patches, K codes, R books.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..data.masking import generator_for, mask_patches
from ..model.drawn_images_cbvila import denormalize, to_pictures
from ..model.item_lists_cbvila import by_position
from ..model.losses_cbvila import patchify
from ..model.modeling_cbvila_reconstruction import CBViLAModelWithReconstruction
from ..model.modeling_cbvila_vision import tokens_to_quantize
from ..model.nearest_codes_cbvila import count_codes
from ..model.processing_cbvila import CBViLAProcessor
from ..retrieval.encoding import evaluating, pixel_values_of, tokens_of
from .row_words import RowWords


@dataclass
class VisualWords:
    """The visual words of M images.

    Attributes:
        indices: (M, N, R) code indices, numbered consecutively through all books (most quantizers have one).
        counts: (K,) how often each code was chosen.
        colours: (K, 3) mean colour, 0 to 1, of the patches of each code; grey if there are none.
        grid: Rows and columns of patches in an image.
        row_words: Words of their captions and labels.
    """

    indices: np.ndarray
    counts: np.ndarray
    colours: np.ndarray
    grid: tuple[int, int]
    row_words: RowWords = field(default_factory=RowWords)


@dataclass
class ReconstructionExample:
    """An image reconstructed from its own codes, and from codes that MIM predicted with its and another caption.

    Attributes:
        caption: The image's caption.
        other_caption: Another caption.
        image: The image.
        masked: The image with masked patches grey.
        reconstructed: Reconstructed from its own codes.
        predicted: Reconstructed with the codes that MIM predicts for masked patches.
        predicted_other: The same, with the other caption.
        bool_masked_pos: (N,) which patches were masked.
        patch_size: Pixels per side of a patch.
        accuracy: Share of the masked patches' codes that MIM predicts correctly, 0 to 1.
        accuracy_other: The same, with the other caption.
    """

    caption: str
    other_caption: str
    image: np.ndarray
    masked: np.ndarray
    reconstructed: np.ndarray
    predicted: np.ndarray
    predicted_other: np.ndarray
    bool_masked_pos: np.ndarray
    patch_size: int
    accuracy: float
    accuracy_other: float


def collect_visual_words(
    model: CBViLAModelWithReconstruction,
    processor: CBViLAProcessor,
    rows: Sequence[dict[str, Any]],
    batch_size: int = 64,
    progress: bool = True,
) -> VisualWords:
    """Encodes the `image` of every row.

    Args:
        model: The model.
        processor: Its processor, which gives all images one size.
        rows: M rows.
        batch_size: Images encoded at a time.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: If there are no rows.
    """
    rows = by_position(rows, "rows")
    if len(rows) == 0:
        raise ValueError("There are no images to look at: rows is empty.")
    quantizer = model.cbvila.quantizer
    num_codes, patch = quantizer.num_codes, model.config.vision_config.patch_size
    colours, indices, grid, row_words = torch.zeros(num_codes, 3), [], (0, 0), RowWords()
    counts = torch.zeros(num_codes, dtype=torch.long)
    with evaluating(model):
        for start in tqdm(range(0, len(rows), batch_size), desc="Collecting visual words", disable=not progress):
            chunk = [rows[i] for i in range(start, min(start + batch_size, len(rows)))]
            for row in chunk:
                row_words.add(row)
            pixel_values = pixel_values_of(model, processor, [row["image"] for row in chunk])
            tokens = tokens_to_quantize(model.cbvila.vision_model(pixel_values))
            found = quantizer.global_indices(quantizer(tokens).indices).cpu()
            patches = patchify(denormalize(processor.image_processor, pixel_values), patch)
            means = patches.view(-1, patch**2, 3).mean(1)
            colours.index_add_(0, found.flatten(), means.repeat_interleave(found.shape[-1], dim=0))
            indices.append(found.to(torch.int16 if num_codes <= 2**15 else torch.int32))  # saves memory: all rows
            grid = model.patch_grid(pixel_values)
            counts += count_codes(found, num_codes)
    everything = torch.cat(indices)
    colours = torch.where(counts.unsqueeze(1) > 0, colours / counts.clamp_min(1).unsqueeze(1), 0.5)
    return VisualWords(everything.numpy(), counts.numpy(), colours.numpy(), grid, row_words)


def choose_codes(counts: np.ndarray, most_used: int = 16, others: int = 8, seed: int = 0) -> list[int]:
    """Chooses codes to show: the most used ones by their counts (K,), and a random sample of the others in use."""
    by_use = np.argsort(-counts, kind="stable")
    by_use = by_use[counts[by_use] > 0]
    rest = by_use[most_used:]
    drawn = torch.randperm(len(rest), generator=generator_for(seed, 5))[:others]
    return [*by_use[:most_used].tolist(), *rest[np.sort(drawn.numpy())].tolist()]


def find_patches(code: int, indices: np.ndarray, limit: int = 16, seed: int = 0) -> list[tuple[int, int]]:
    """Samples patches with a code from indices (M, N, R): (image, patch), one from each of at most `limit` images."""
    has_code = (indices == code).any(axis=2)
    images = np.flatnonzero(has_code.any(axis=1))
    generator = generator_for(seed, 6, code)
    chosen = images[torch.randperm(len(images), generator=generator)[:limit].numpy()]
    places = []
    for image in chosen.tolist():
        patches = np.flatnonzero(has_code[image])
        places.append((image, int(patches[int(torch.randint(len(patches), (), generator=generator))])))
    return places


def choose_rows(rows: Sequence[dict[str, Any]], limit: int = 16, seed: int = 0) -> list[int]:
    """Samples at most `limit` rows, those with distinct captions first."""
    order = torch.randperm(len(rows), generator=generator_for(seed, 7)).tolist()
    first: list[int] = []
    seen: set[str] = set()
    for row in order:
        caption = rows[row]["captions"][0]
        if caption not in seen:
            seen.add(caption)
            first.append(row)
        if len(first) == limit:
            return first
    return (first + [row for row in order if row not in set(first)])[:limit]


def reconstruct_examples(
    model: CBViLAModelWithReconstruction,
    processor: CBViLAProcessor,
    rows: Sequence[dict[str, Any]],
    mask_ratio: float = 0.75,
    seed: int = 0,
    batch_size: int = 16,
) -> list[ReconstructionExample]:
    """Reconstructs the `image` of each row, with its first caption and with that of the next row with another one.

    Args:
        model: The model.
        processor: Its processor.
        rows: Rows with `image` and `captions`.
        mask_ratio: Share of patches to mask.
        seed: Seed of the masks.
        batch_size: Images at a time.
    """
    captions = [row["captions"][0] for row in rows]
    others = [_another(captions, i) for i in range(len(captions))]
    examples = []
    with evaluating(model):
        for start in range(0, len(rows), batch_size):
            part = slice(start, start + batch_size)
            pixel_values = pixel_values_of(model, processor, [row["image"] for row in rows[part]])
            patches = int(np.prod(model.patch_grid(pixel_values)))
            masks = torch.stack(
                [mask_patches(patches, generator_for(seed, start + i), mask_ratio) for i in range(len(pixel_values))]
            )
            examples += _reconstruct(model, processor, pixel_values, captions[part], others[part], masks)
    return examples


def _another(captions: list[str], place: int) -> str:
    """Returns the next caption that differs, or the same one if all are equal."""
    return next((other for other in captions[place:] + captions[:place] if other != captions[place]), captions[place])


def _reconstruct(
    model: CBViLAModelWithReconstruction,
    processor: CBViLAProcessor,
    pixel_values: Tensor,
    captions: list[str],
    others: list[str],
    masks: Tensor,
) -> list[ReconstructionExample]:
    def reconstruct(texts: list[str], mask: Tensor | None) -> tuple[np.ndarray, Tensor]:
        ids, attention_mask = tokens_of(model, processor, texts)
        result = model.reconstruct(pixel_values, ids, attention_mask, None if mask is None else mask.to(model.device))
        return to_pictures(processor.image_processor, result.pixel_values), result.codebook_indices.cpu()

    reconstructed, own_codes = reconstruct(captions, None)
    predicted, codes = reconstruct(captions, masks)
    predicted_other, other_codes = reconstruct(others, masks)
    images, patch_size = to_pictures(processor.image_processor, pixel_values), model.config.vision_config.patch_size
    masked = hide_patches(images, masks.numpy(), patch_size)
    return [
        ReconstructionExample(
            captions[i],
            others[i],
            images[i],
            masked[i],
            reconstructed[i],
            predicted[i],
            predicted_other[i],
            masks[i].numpy(),
            patch_size,
            float((codes == own_codes)[i][masks[i]].float().mean()),
            float((other_codes == own_codes)[i][masks[i]].float().mean()),
        )
        for i in range(len(captions))
    ]


def hide_patches(images: np.ndarray, bool_masked_pos: np.ndarray, patch_size: int) -> np.ndarray:
    """Returns images (B, H, W, 3) with masked patches (B, N) in grey."""
    batch, height, width = images.shape[:3]
    grid = bool_masked_pos.reshape(batch, height // patch_size, width // patch_size)
    covered = grid.repeat(patch_size, axis=1).repeat(patch_size, axis=2)
    return np.where(covered[..., None], np.uint8(128), images)
