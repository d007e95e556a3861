"""What images cost and lose with a codebook: bits, use of codes, and the error of reconstruction.

Shapes: B batch, M images in all, N patches, K codes.
"""

from collections.abc import Sequence
from math import log2
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..data.measured_pairs import MeasuredPairs
from ..metrics.image_similarity import psnr, ssim
from ..metrics.intervals import mean_with_interval
from ..model.codebook_statistics_cbvila import codebook_statistics
from ..model.drawn_images_cbvila import denormalize
from ..model.item_lists_cbvila import by_position
from ..model.modeling_cbvila_reconstruction import CBViLAModelWithReconstruction
from ..model.nearest_codes_cbvila import count_codes
from ..model.objective_pixel_cbvila import CBViLAPixel
from ..model.processing_cbvila import CBViLAProcessor
from ..retrieval.encoding import evaluating, pixel_values_of, tokens_of


def measure_rate(
    model: CBViLAModelWithReconstruction,
    processor: CBViLAProcessor,
    rows: Sequence[dict[str, Any]],
    codes: Tensor | None = None,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, float]:
    """Measures how well images are reconstructed from codes, with their own captions.

    Args:
        model: A model with the pixel objective.
        processor: Its processor.
        rows: M rows with `image` and `captions`, of which the first is used.
        codes: (K, C) codes in place of the quantizer's own.
        batch_size: Images at a time.
        seed: Seed of bootstrap intervals.
        progress: Whether to show a progress bar.

    Returns:
        `psnr` (in dB) and `ssim`, means over images with colours from 0 to 1, each with `_low` and `_high`; `pixel`
        (mean squared error of normalized colours); `codebook_usage`, `codebook_perplexity` and `codebook_top_share`
        over `codebook_window_tokens` patches; `bits_per_token`, log2 of the number of codes, added up over books.

    Raises:
        ValueError: If the model has no pixel objective, or its quantizer cannot use other codes.
    """
    rows = by_position(rows, "rows")
    rows = rows if isinstance(rows, MeasuredPairs) else MeasuredPairs(rows)  # which name what cannot be read
    quantizer = model.cbvila.quantizer
    sizes = quantizer.book_sizes if codes is None else (len(codes),)
    ratios, similarities, errors, indices = list[Tensor](), list[Tensor](), list[Tensor](), list[Tensor]()
    with evaluating(model):
        for start in tqdm(range(0, len(rows), batch_size), desc="Reconstructing", disable=not progress):
            chunk = [rows[i] for i in range(start, min(start + batch_size, len(rows)))]
            pixel_values = pixel_values_of(model, processor, [row["image"] for row in chunk])
            texts = tokens_of(model, processor, [row["captions"][0] for row in chunk])
            found = model.reconstruct(pixel_values, *texts, codes=codes)
            errors.append(_mean_error(found.pixel_values.float(), pixel_values.float()).cpu())
            drawn, shown = (
                denormalize(processor.image_processor, values) for values in (found.pixel_values, pixel_values)
            )
            ratios.append(psnr(drawn, shown))
            similarities.append(ssim(drawn, shown))
            indices.append(found.codebook_indices.cpu())
    chosen = torch.cat(indices)
    bits = quantizer.bits_per_token(chosen) if codes is None else log2(len(codes))
    counts = count_codes(quantizer.global_indices(chosen) if codes is None else chosen, sum(sizes))
    statistics = codebook_statistics(counts.double(), sizes)
    return {
        **mean_with_interval("psnr", torch.cat(ratios).numpy(), seed),
        **mean_with_interval("ssim", torch.cat(similarities).numpy(), seed),
        CBViLAPixel.name: float(torch.cat(errors).mean()),
        **{f"codebook_{name}": float(value) for name, value in statistics.items()},
        "codebook_window_tokens": chosen.numel() // len(sizes),
        "bits_per_token": bits,
    }


def _mean_error(first: Tensor, second: Tensor) -> Tensor:
    """Returns the mean squared difference (B,) of images (B, 3, H, W)."""
    return (first - second).square().flatten(1).mean(1)
