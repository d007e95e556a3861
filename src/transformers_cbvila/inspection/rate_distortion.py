"""Rate and distortion: what images lose with fewer codes of a trained model, without further training."""

from collections.abc import Sequence
from typing import Any

import torch

from ..model.code_rates_cbvila import dkm
from ..model.codebook_resizing_cbvila import resizable_quantizer
from ..model.modeling_cbvila_reconstruction import CBViLAModelWithReconstruction
from ..model.processing_cbvila import CBViLAProcessor
from .codebook_rates import measure_rate

_MEASURED = ("psnr", "psnr_low", "psnr_high", "ssim", "ssim_low", "ssim_high")


def check_fewer_codes(model: CBViLAModelWithReconstruction, numbers: Sequence[int]) -> None:
    """Checks, before anything is measured, that a model can reconstruct with so many codes.

    Raises:
        ValueError: If it has no codebook, no pixel objective or not a single table of codes, or a number is out of
            range.
    """
    quantizer = resizable_quantizer(model)
    assert model.pixel is not None  # the property is an error without the objective
    if not all(1 <= number <= quantizer.num_codes for number in numbers):
        raise ValueError(f"Fewer codes are from 1 to the model's {quantizer.num_codes}, not {list(numbers)}.")


def rate_distortion(
    model: CBViLAModelWithReconstruction,
    processor: CBViLAProcessor,
    rows: Sequence[dict[str, Any]],
    numbers: Sequence[int],
    seed: int = 0,
    progress: bool = True,
) -> dict[str, float]:
    """Measures reconstruction with fewer codes, which differentiable k-means makes of the model's.

    Args:
        model: A model with the pixel objective and a single table of codes.
        processor: Its processor.
        rows: Rows with `image` and `captions`.
        numbers: Numbers of codes, each from 1 to that of the model.
        seed: Seed of k-means and of intervals.
        progress: Whether to show progress bars.

    Returns:
        `psnr_64_codes`, `ssim_64_codes` and so on, each with `_low` and `_high`.

    Raises:
        ValueError: See [`check_fewer_codes`].
    """
    check_fewer_codes(model, numbers)
    (table,) = model.cbvila.quantizer.tables()
    codes, found = table().detach(), dict[str, float]()
    for number in numbers:
        fewer = dkm(codes, number, torch.Generator().manual_seed(seed), unit_norm=table.unit_norm)
        measured = measure_rate(model, processor, rows, fewer, seed=seed, progress=progress)
        for name in _MEASURED:
            metric, _, bound = name.partition("_")
            found["_".join(part for part in (metric, f"{number}_codes", bound) if part)] = measured[name]
    return found
