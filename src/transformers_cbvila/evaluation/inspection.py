"""What a pretrained CB-ViLA has learned, on pairs it may not have seen: codebook, MIM, reconstruction, retrieval.

Shapes: B pairs in a batch, M pairs in all, N patches, K codes.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from ..data.collators import CBViLADataCollatorForPreTraining
from ..data.masking import generator_for
from ..model.modeling_cbvila_codebook import codebook_statistics, count_codes
from ..model.modeling_cbvila_pretraining import CBViLAForPreTraining
from ..model.processing_cbvila import CBViLAProcessor
from .intervals import bootstrap_interval
from .retrieval_figures import retrieval_figures

_TEXT_INPUTS = ("input_ids", "attention_mask")


@torch.no_grad()
def inspect_pretraining(
    model: CBViLAForPreTraining,
    processor: CBViLAProcessor,
    rows: Sequence[dict[str, Any]],
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = True,
    rerank_k: int | None = 64,
) -> dict[str, float]:
    """Measures a pretrained model on rows with `image` and `captions` (the first is used).

    MIM is measured with the true caption, with another row's and with the same masks; its cross-entropy must be read
    against ln(perplexity), and its accuracy against the share of the most frequent code and of the most frequent code
    at each position: a collapsed codebook makes both look good.

    An objective that the model was trained without (its weight is 0) has no figures.

    Args:
        rerank_k: How many candidates per query matching orders anew; `None` or 0: retrieval by similarity only.

    Returns:
        `codebook_usage`, `codebook_perplexity`, `codebook_top_share` over `codebook_window_tokens` patches, without
        knowing which usage and perplexity say little; `ln_perplexity`; `mim`, `mim_shuffled_caption`
        (cross-entropy), `mim_advantage_low`, `mim_advantage_high` (95 % bootstrap interval, over images, of what the
        true caption saves), `mim_accuracy`, `mim_accuracy_shuffled_caption`, `mim_accuracy_position_floor`; `pixel`
        (mean squared error) and `pixel_floor` (of predicting the mean colour); and what
        [`retrieval_figures`] returns, `text_retrieval_r1` … `image_retrieval_r10_combined_high`.
    """
    model.eval()
    collate = CBViLADataCollatorForPreTraining(processor, model.config.vision_config.patch_size)
    found: dict[str, list[Tensor]] = defaultdict(list)
    for start in tqdm(range(0, len(rows), batch_size), desc="Inspecting", disable=not progress):
        chunk = [(i, rows[i]) for i in range(start, min(start + batch_size, len(rows)))]
        examples = [
            {"image": row["image"], "text": _first_caption(row, i), "generator": generator_for(seed, i)}
            for i, row in chunk
        ]
        batch = {name: tensor.to(model.device) for name, tensor in collate(examples).items()}
        _measure_batch(model, batch, found)
    retrieval = retrieval_figures(model, processor, rows, rerank_k, batch_size, seed, progress)
    indices = torch.cat(found["indices"])
    return {**_codebook(indices, model), **_mim(found, indices, seed), **_pixels(found), **retrieval}


def _first_caption(row: dict[str, Any], place: int) -> str:
    if not row["captions"]:
        raise ValueError(f"row {place} has no caption: leave it out, or name another column with caption_column")
    return row["captions"][0]


def _measure_batch(model: CBViLAForPreTraining, batch: dict[str, Tensor], found: dict[str, list[Tensor]]) -> None:
    """Adds a batch's measurements, one entry per image, to what was found."""
    output = model(**batch, loss_weights={"mlm": 0.0, "itm": 0.0})
    found["indices"].append(output.codebook_indices)
    if output.losses.pixel is not None:
        found["pixel"].append(output.losses.pixel.expand(len(output.codebook_indices)))
        found["colours"].append(batch["pixel_values"].flatten(1).float())
    if output.mim_logits is not None:
        _measure_mim(model, batch, output, found)


def _measure_mim(model: CBViLAForPreTraining, batch, output, found: dict[str, list[Tensor]]) -> None:
    """Adds MIM with the true caption and with the neighbour's, of the same image with the same masks."""
    mask = batch["bool_masked_pos"]
    targets = output.codebook_indices[mask]
    shuffled = {**batch, **{name: batch[name].roll(1, dims=0) for name in _TEXT_INPUTS}}
    wrong = model(**shuffled, loss_weights={"mlm": 0.0, "itm": 0.0})
    for name, logits in (("true", output.mim_logits), ("shuffled", wrong.mim_logits)):
        logits = logits.float()
        found[f"mim_{name}"].append(F.cross_entropy(logits, targets, reduction="none").view(len(mask), -1).mean(-1))
        found[f"accuracy_{name}"].append((logits.argmax(-1) == targets).float().view(len(mask), -1).mean(-1))


def _codebook(indices: Tensor, model: CBViLAForPreTraining) -> dict[str, float]:
    """Figures of words (M, N)."""
    statistics = codebook_statistics(count_codes(indices, model.config.codebook_size))
    return {
        **{f"codebook_{name}": float(value) for name, value in statistics.items()},
        "codebook_window_tokens": indices.numel(),
        "ln_perplexity": float(statistics["perplexity"].log()),
    }


def _mim(found: dict[str, list[Tensor]], indices: Tensor, seed: int) -> dict[str, float]:
    """Figures of MIM, with the accuracy of the best guess that knows a word's place alone; words (M, N)."""
    if not found["mim_true"]:
        return {}
    true, shuffled = torch.cat(found["mim_true"]).cpu().numpy(), torch.cat(found["mim_shuffled"]).cpu().numpy()
    low, high = bootstrap_interval(shuffled - true, seed)
    return {
        "mim": float(true.mean()),
        "mim_shuffled_caption": float(shuffled.mean()),
        "mim_advantage_low": low,
        "mim_advantage_high": high,
        "mim_accuracy": float(torch.cat(found["accuracy_true"]).mean()),
        "mim_accuracy_shuffled_caption": float(torch.cat(found["accuracy_shuffled"]).mean()),
        "mim_accuracy_position_floor": float(F.one_hot(indices).float().mean(0).max(-1).values.mean()),
    }


def _pixels(found: dict[str, list[Tensor]]) -> dict[str, float]:
    """Error of drawing images from their words, and of predicting the mean colour."""
    if not found["pixel"]:
        return {}
    colours = torch.cat(found["colours"])
    channels = colours.view(len(colours), 3, -1)
    floor = channels.var(dim=(0, 2), correction=0).mean()
    return {"pixel": float(torch.cat(found["pixel"]).mean()), "pixel_floor": float(floor)}
