"""What the visual words of a model look like: how often each is used, on which patches, and what is drawn from them.

Pictures are uint8 arrays (H, W, 3), as the model sees them: resized and cut by its image processor.

Shapes: M rows, B batch, N patches, K codes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..data.masking import generator_for, mask_patches
from ..model.item_lists_cbvila import by_position
from ..model.losses_cbvila import patchify
from ..model.modeling_cbvila_reconstruction import CBViLAModelWithReconstruction
from ..model.nearest_codes_cbvila import count_codes
from ..model.processing_cbvila import CBViLAProcessor
from ..retrieval.encoding import evaluating, pixel_values_of, tokens_of


@dataclass
class VisualWords:
    """The visual words of M images.

    Attributes:
        indices: (M, N, R) codes of R books (one for most quantizers), numbered through all books.
        counts: (K,) how often each code was chosen.
        colours: (K, 3) mean colour, 0 to 1, of the patches of each code; grey where there are none.
        grid: Rows and columns of patches of an image.
    """

    indices: np.ndarray
    counts: np.ndarray
    colours: np.ndarray
    grid: tuple[int, int]


@dataclass
class DrawnExample:
    """An image drawn from its own words, and from words that MIM predicted with its caption and with another one.

    `hidden` (N,) says which words were hidden from MIM, of patches of `patch_size` pixels; `named` and
    `named_otherwise` are the shares of them that MIM got right, 0 to 1.
    """

    caption: str
    other_caption: str
    image: np.ndarray
    masked: np.ndarray
    from_own_words: np.ndarray
    from_predicted: np.ndarray
    from_predicted_otherwise: np.ndarray
    hidden: np.ndarray
    patch_size: int
    named: float
    named_otherwise: float


def colours_of(processor: CBViLAProcessor, pixel_values: Tensor) -> Tensor:
    """Normalised images (B, 3, H, W) with colours from 0 to 1, on the CPU in fp32."""
    settings = processor.image_processor
    mean, deviation = (torch.tensor(value).view(3, 1, 1) for value in (settings.image_mean, settings.image_std))
    return (pixel_values.float().cpu() * deviation + mean).clamp(0, 1)


def pictures_of(processor: CBViLAProcessor, pixel_values: Tensor) -> np.ndarray:
    """Normalised images (B, 3, H, W) as pictures (B, H, W, 3)."""
    return (colours_of(processor, pixel_values) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def collect_visual_words(
    model: CBViLAModelWithReconstruction,
    processor: CBViLAProcessor,
    rows: Sequence[dict[str, Any]],
    batch_size: int = 64,
    progress: bool = True,
) -> VisualWords:
    """Encodes the `image` of every row. All images must have the size that the processor gives them.

    Raises:
        ValueError: If there are no rows.
    """
    rows = by_position(rows, "rows")
    if len(rows) == 0:
        raise ValueError("There are no images to look at: rows is empty.")
    quantizer = model.cbvila.quantizer
    num_codes, patch = quantizer.num_codes, model.config.vision_config.patch_size
    colours, indices, grid = torch.zeros(num_codes, 3), [], (0, 0)
    counts = torch.zeros(num_codes, dtype=torch.long)
    with evaluating(model):
        for start in tqdm(range(0, len(rows), batch_size), desc="Collecting visual words", disable=not progress):
            images = [rows[i]["image"] for i in range(start, min(start + batch_size, len(rows)))]
            pixel_values = pixel_values_of(model, processor, images)
            tokens = model.cbvila.vision_model(pixel_values).last_hidden_state
            found = quantizer.global_indices(quantizer(tokens[:, 1:]).indices).cpu()
            patches = patchify(colours_of(processor, pixel_values), patch)
            means = patches.view(-1, patch**2, 3).mean(1)
            colours.index_add_(0, found.flatten(), means.repeat_interleave(found.shape[-1], dim=0))
            indices.append(found.to(torch.int16 if num_codes <= 2**15 else torch.int32))  # of every row
            grid = model.patch_grid(pixel_values)
            counts += count_codes(found, num_codes)
    everything = torch.cat(indices)
    colours = torch.where(counts.unsqueeze(1) > 0, colours / counts.clamp_min(1).unsqueeze(1), 0.5)
    return VisualWords(everything.numpy(), counts.numpy(), colours.numpy(), grid)


def choose_codes(counts: np.ndarray, most_used: int = 16, others: int = 8, seed: int = 0) -> list[int]:
    """Codes to show: the most used ones of counts (K,), and a few of the others in use, drawn at random."""
    by_use = np.argsort(-counts, kind="stable")
    by_use = by_use[counts[by_use] > 0]
    rest = by_use[most_used:]
    drawn = torch.randperm(len(rest), generator=generator_for(seed, 5))[:others]
    return [*by_use[:most_used].tolist(), *rest[np.sort(drawn.numpy())].tolist()]


def places_of(code: int, indices: np.ndarray, limit: int = 16, seed: int = 0) -> list[tuple[int, int]]:
    """Where a code is among indices (M, N, R): (image, patch) at random in at most `limit` images, all different."""
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
    """At most `limit` rows at random, those with captions of their own first."""
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


def draw_examples(
    model: CBViLAModelWithReconstruction,
    processor: CBViLAProcessor,
    rows: Sequence[dict[str, Any]],
    mask_ratio: float = 0.75,
    seed: int = 0,
    batch_size: int = 16,
) -> list[DrawnExample]:
    """Draws the `image` of each row, with its first caption and with that of the next row that has another one."""
    captions = [row["captions"][0] for row in rows]
    others = [_another(captions, i) for i in range(len(captions))]
    examples = []
    with evaluating(model):
        for start in range(0, len(rows), batch_size):
            part = slice(start, start + batch_size)
            pixel_values = pixel_values_of(model, processor, [row["image"] for row in rows[part]])
            patches = int(np.prod(model.patch_grid(pixel_values)))
            hidden = torch.stack(
                [mask_patches(patches, generator_for(seed, start + i), mask_ratio) for i in range(len(pixel_values))]
            )
            examples += _draw(model, processor, pixel_values, captions[part], others[part], hidden)
    return examples


def _another(captions: list[str], place: int) -> str:
    """The next caption that is another one, if there is one."""
    return next((other for other in captions[place:] + captions[:place] if other != captions[place]), captions[place])


def _draw(model, processor, pixel_values: Tensor, captions, others, hidden: Tensor) -> list[DrawnExample]:
    def drawn(texts: list[str], mask: Tensor | None):
        ids, attention_mask = tokens_of(model, processor, texts)
        result = model.reconstruct(pixel_values, ids, attention_mask, None if mask is None else mask.to(model.device))
        return pictures_of(processor, result.pixel_values), result.codebook_indices.cpu()

    own, words = drawn(captions, None)
    predicted, named = drawn(captions, hidden)
    otherwise, named_otherwise = drawn(others, hidden)
    pictures = pictures_of(processor, pixel_values)
    grey = hide_patches(pictures, hidden.numpy(), model.config.vision_config.patch_size)
    return [
        DrawnExample(
            captions[i],
            others[i],
            pictures[i],
            grey[i],
            own[i],
            predicted[i],
            otherwise[i],
            hidden[i].numpy(),
            model.config.vision_config.patch_size,
            float((named == words)[i][hidden[i]].float().mean()),
            float((named_otherwise == words)[i][hidden[i]].float().mean()),
        )
        for i in range(len(captions))
    ]


def hide_patches(pictures: np.ndarray, hidden: np.ndarray, patch_size: int) -> np.ndarray:
    """Pictures (B, H, W, 3) with their `hidden` (B, N) patches grey."""
    batch, height, width = pictures.shape[:3]
    grid = hidden.reshape(batch, height // patch_size, width // patch_size)
    covered = grid.repeat(patch_size, axis=1).repeat(patch_size, axis=2)
    return np.where(covered[..., None], np.uint8(128), pictures)
