"""What a pretrained CB-ViLA has learned, on pairs it may not have seen: codebook, MIM, reconstruction, retrieval.

Shapes: B pairs in a batch, M pairs in all, N patches, K codes.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from ..data.collators import CBViLADataCollatorForPreTraining
from ..data.masking import generator_for
from ..model.modeling_cbvila_codebook import codebook_statistics, count_codes
from ..model.modeling_cbvila_pretraining import CBViLAForPreTraining
from ..model.processing_cbvila import CBViLAProcessor
from .retrieval_metrics import recall_at_k

_TEXT_INPUTS = ("input_ids", "attention_mask")


@torch.no_grad()
def inspect_pretraining(
    model: CBViLAForPreTraining,
    processor: CBViLAProcessor,
    rows: Sequence[dict[str, Any]],
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, float]:
    """Measures a pretrained model on rows with `image` and `captions` (the first is used).

    MIM is measured with the true caption, with another row's and with the same masks; its cross-entropy must be read
    against ln(perplexity), and its accuracy against the share of the most frequent code and of the most frequent code
    at each position: a collapsed codebook makes both look good.

    Returns:
        `codebook_usage`, `codebook_perplexity`, `codebook_top_share`, `ln_perplexity`; `mim`, `mim_shuffled_caption`
        (cross-entropy), `mim_advantage_low`, `mim_advantage_high` (95 % bootstrap interval, over images, of what the
        true caption saves), `mim_accuracy`, `mim_accuracy_shuffled_caption`, `mim_accuracy_position_floor`; `pixel`
        (mean squared error) and `pixel_floor` (of predicting the mean colour); `text_retrieval_r1` …
        `image_retrieval_r10` by cosine similarity.
    """
    model.eval()
    collate = CBViLADataCollatorForPreTraining(processor, model.config.vision_config.patch_size)
    found: dict[str, list[Tensor]] = defaultdict(list)
    for start in tqdm(range(0, len(rows), batch_size), desc="Inspecting", disable=not progress):
        chunk = [(i, rows[i]) for i in range(start, min(start + batch_size, len(rows)))]
        examples = [
            {"image": row["image"], "text": row["captions"][0], "generator": generator_for(seed, i)}
            for i, row in chunk
        ]
        batch = {name: tensor.to(model.device) for name, tensor in collate(examples).items()}
        _measure_batch(model, batch, found)
    captions = [rows[i]["captions"][0] for i in range(len(rows))]
    return {**_codebook_and_mim(model, found, seed), **_pixels(found), **_retrieval(found, captions)}


def _measure_batch(model: CBViLAForPreTraining, batch: dict[str, Tensor], found: dict[str, list[Tensor]]) -> None:
    """Adds a batch's measurements, one entry per image, to what was found."""
    output = model(**batch, loss_weights={"mlm": 0.0, "itm": 0.0})
    mask = batch["bool_masked_pos"]
    targets = output.codebook_indices[mask]
    # the neighbour's caption, with the same image and the same masks
    shuffled = {**batch, **{name: batch[name].roll(1, dims=0) for name in _TEXT_INPUTS}}
    wrong = model(**shuffled, loss_weights={"mlm": 0.0, "itm": 0.0})
    for name, logits in (("true", output.mim_logits), ("shuffled", wrong.mim_logits)):
        logits = logits.float()
        found[f"mim_{name}"].append(F.cross_entropy(logits, targets, reduction="none").view(len(mask), -1).mean(-1))
        found[f"accuracy_{name}"].append((logits.argmax(-1) == targets).float().view(len(mask), -1).mean(-1))
    found["indices"].append(output.codebook_indices)
    found["pixel"].append(output.losses.pixel.expand(len(mask)))
    found["colours"].append(batch["pixel_values"].flatten(1).float())
    found["image_embeds"].append(output.image_embeds)
    found["text_embeds"].append(output.text_embeds)


def _codebook_and_mim(model, found: dict[str, list[Tensor]], seed: int) -> dict[str, float]:
    indices = torch.cat(found["indices"])
    num_codes = model.config.codebook_size
    statistics = codebook_statistics(count_codes(indices, num_codes))
    by_position = F.one_hot(indices, num_codes).float().mean(0).max(-1).values.mean()
    true, shuffled = torch.cat(found["mim_true"]).cpu().numpy(), torch.cat(found["mim_shuffled"]).cpu().numpy()
    low, high = bootstrap_interval(shuffled - true, seed)
    return {
        **{f"codebook_{name}": float(value) for name, value in statistics.items()},
        "ln_perplexity": float(statistics["perplexity"].log()),
        "mim": float(true.mean()),
        "mim_shuffled_caption": float(shuffled.mean()),
        "mim_advantage_low": low,
        "mim_advantage_high": high,
        "mim_accuracy": float(torch.cat(found["accuracy_true"]).mean()),
        "mim_accuracy_shuffled_caption": float(torch.cat(found["accuracy_shuffled"]).mean()),
        "mim_accuracy_position_floor": float(by_position),
    }


def _pixels(found: dict[str, list[Tensor]]) -> dict[str, float]:
    colours = torch.cat(found["colours"])
    channels = colours.view(len(colours), 3, -1)
    floor = channels.var(dim=(0, 2), correction=0).mean()
    return {"pixel": float(torch.cat(found["pixel"]).mean()), "pixel_floor": float(floor)}


def _retrieval(found: dict[str, list[Tensor]], captions: Sequence[str]) -> dict[str, float]:
    """Recall both ways; rows with the same caption are true matches of each other."""
    names = np.asarray(captions)
    relevant = names[:, None] == names[None, :]
    similarity = (torch.cat(found["image_embeds"]) @ torch.cat(found["text_embeds"]).T).cpu().numpy()
    recalls = {"text": recall_at_k(similarity, relevant), "image": recall_at_k(similarity.T, relevant.T)}
    return {f"{way}_retrieval_r{k}": value for way, at in recalls.items() for k, value in at.items()}


def bootstrap_interval(values: np.ndarray, seed: int, draws: int = 2000) -> tuple[float, float]:
    """95 % percentile interval of the mean of values (M,), by resampling."""
    generator = np.random.default_rng(seed)
    means = [values[generator.integers(len(values), size=len(values))].mean() for _ in range(draws)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
