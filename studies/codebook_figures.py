"""What a study of codebooks measures of a trained model, besides what all studies measure."""

from collections.abc import Sequence
from typing import Any

from transformers_cbvila.inspection.codebook_rates import measure_rate
from transformers_cbvila.inspection.codebook_report import codebook_report
from transformers_cbvila.inspection.image_tokenizers import CBViLATokenizer
from transformers_cbvila.model.codebook_resizing_cbvila import resized_codes


def codebook_figures(model: Any, processor: Any, rows: Sequence[Any], fewer_codes: Sequence[int]) -> dict[str, float]:
    """Returns the codebook report of a model, and how well it reconstructs images.

    Args:
        model: The model.
        processor: Its processor.
        rows: Rows with `image`, `captions` and, optionally, `keywords`.
        fewer_codes: Numbers of codes to reconstruct with as well, where the quantizer can change its number.

    Returns:
        What [`codebook_report`] and [`measure_rate`] return, and `psnr_N_codes` with N codes by `dkm`,
        `psnr_N_codes_most_used` with as many of its own where they are counted, and `psnr_N_codes_raq` with those that
        the objective `raq` generates.
    """
    found = {
        **measure_rate(model, processor, rows, progress=False),
        **codebook_report(CBViLATokenizer(model, processor), rows, progress=False),
    }
    for number in fewer_codes:
        for name, codes in _codes(model, number).items():
            found[name] = measure_rate(model, processor, rows, codes, progress=False)["psnr"]
    return found


def _codes(model: Any, number: int) -> dict[str, Any]:
    """Returns so many codes by the name of the figure, in each way that the model's quantizer and objectives allow."""
    codes = dict[str, Any]()
    for ending, method in (("", "dkm"), ("_most_used", "most_used")):
        try:
            codes[f"psnr_{number}_codes{ending}"] = resized_codes(model, number, method).codes
        except ValueError:  # this quantizer cannot change its number, or does not count its codes
            continue
    if "raq" in model.objectives:
        quantizer = model.cbvila.quantizer
        codes[f"psnr_{number}_codes_raq"] = model.objectives["raq"].codes_at(quantizer.table(), number)
    return codes
