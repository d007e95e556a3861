"""Metrics of a pretrained model on image-text pairs: codebook, MIM, reconstruction, retrieval.

Shapes: B pairs in a batch, M pairs in all, N patches, K codes, R books.
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
from ..data.measured_pairs import MeasuredPairs
from ..metrics.intervals import mean_with_interval
from ..model.codebook_statistics_cbvila import codebook_statistics
from ..model.item_lists_cbvila import by_position
from ..model.losses_cbvila import by_book
from ..model.modeling_cbvila_pretraining import CBViLAForPreTraining
from ..model.nearest_codes_cbvila import count_codes
from ..model.objective_mim_cbvila import CBViLAMIM
from ..model.objective_pixel_cbvila import CBViLAPixel
from ..model.processing_cbvila import CBViLAProcessor
from ..retrieval.encoding import evaluating
from ..retrieval.measure import measure_retrieval

_TEXT_INPUTS = ("input_ids", "attention_mask")
# Metrics of which a better model has less, beside the losses.
LOWER_IS_BETTER = (CBViLAMIM.name, "mim_shuffled_caption", CBViLAPixel.name, "codebook_top_share")


def inspect_pretraining(
    model: CBViLAForPreTraining,
    processor: CBViLAProcessor,
    rows: Sequence[dict[str, Any]],
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = True,
    rerank_k: int | None = 64,
    losses: bool = False,
) -> dict[str, float]:
    """Measures a pretrained model, or one in training, whose mode and random state stay as they are.

    MIM is measured with the true caption and with another row's, with the same masks. A collapsed codebook makes MIM
    look good, so its cross-entropy should be compared with ln(perplexity), and its accuracy with the shares of the
    most frequent code overall and at each position. Objectives that the model was trained without (weight 0) are left
    out.

    Args:
        model: The model.
        processor: Its processor.
        rows: M rows with `image` and `captions`, of which the first is used.
        batch_size: Rows at a time.
        seed: Seed of masks and bootstrap intervals.
        progress: Whether to show progress bars.
        rerank_k: How many candidates per query matching re-ranks; `None` or 0: retrieval by similarity only.
        losses: Whether to measure the loss and its terms. ITC and ITM then compare the pairs of a batch.

    Returns:
        With `losses`, `loss` (as the configuration weighs its terms) and each term, unweighted, `loss_itm` …: means
        over batches, weighted by their rows. Where the model has a codebook, `codebook_usage`, `codebook_perplexity`
        and `codebook_top_share` over `codebook_window_tokens` patches, which limit usage and perplexity, and
        `ln_perplexity`, and what its quantizer saves of training, such as `codebook_label_agreement`; `mim`,
        `mim_shuffled_caption` (cross-entropy), `mim_advantage` (the cross-entropy that the true caption saves),
        `mim_advantage_low`, `mim_advantage_high` (its 95 % bootstrap interval, over images),
        `mim_accuracy`, `mim_accuracy_shuffled_caption`, `mim_accuracy_position_floor`; `pixel` (mean squared error)
        and `pixel_floor` (of predicting the mean colour); and what [`measure_retrieval`] returns,
        `text_retrieval_r1` … `image_retrieval_r10_combined_high`.
    """
    rows = by_position(rows, "rows")
    rows = rows if isinstance(rows, MeasuredPairs) else MeasuredPairs(rows)  # which name what cannot be read
    collate = CBViLADataCollatorForPreTraining(processor, model.config.vision_config.patch_size)
    sums = _Sums(model.cbvila.quantizer.book_sizes if model.cbvila.has_quantizer else ())
    with evaluating(model):
        for start in tqdm(range(0, len(rows), batch_size), desc="Inspecting", disable=not progress):
            chunk = [(i, rows[i]) for i in range(start, min(start + batch_size, len(rows)))]
            examples = [
                {"image": row["image"], "text": row["captions"][0], "generator": generator_for(seed, i)}
                for i, row in chunk
            ]
            batch = {name: tensor.to(model.device) for name, tensor in collate(examples).items()}
            _measure_batch(model, batch, sums, losses)
        retrieval = measure_retrieval(model, processor, rows, rerank_k, batch_size, seed, progress)
    return {
        **_loss_metrics(sums),
        **_codebook_metrics(sums),
        **_saved_metrics(model),
        **_mim_metrics(sums, seed),
        **_pixel_metrics(sums),
        **retrieval,
    }


class _Sums:
    """Running sums over batches, and a few numbers per image.

    Args:
        book_sizes: K of each of R books.

    Attributes:
        per_image: Numbers (B,) of each batch, by name.
        code_counts: (N, ΣK) how often each code was chosen at each position.
        pixel_sums: (3, 3) for each channel the number of pixels, their sum and the sum of their squares, in fp64.
    """

    def __init__(self, book_sizes: Sequence[int]) -> None:
        self.book_sizes = list(book_sizes)
        self.per_image: dict[str, list[Tensor]] = defaultdict(list)
        self.code_counts: Tensor | None = None
        self.pixel_sums = torch.zeros(3, 3, dtype=torch.float64)

    def add_codes(self, indices: Tensor) -> None:
        """Counts code indices (B, N, R), numbered consecutively through all books."""
        patches, num_codes = indices.shape[1], sum(self.book_sizes)
        places = torch.arange(patches, device=indices.device).unsqueeze(-1) * num_codes + indices
        counts = count_codes(places, patches * num_codes).view(patches, num_codes).cpu()
        self.code_counts = counts if self.code_counts is None else self.code_counts + counts

    def add_pixels(self, pixel_values: Tensor) -> None:
        """Adds up images (B, 3, H, W)."""
        channels = pixel_values.cpu().double().transpose(0, 1).flatten(1)
        pixels = torch.full((3,), channels.shape[1], dtype=torch.float64)
        self.pixel_sums += torch.stack([pixels, channels.sum(1), channels.square().sum(1)], dim=1)

    def counts_by_book(self) -> list[Tensor]:
        """Returns for each book how often each code was chosen at each position, (N, K)."""
        assert self.code_counts is not None
        return list(self.code_counts.split(self.book_sizes, dim=1))

    def mean(self, name: str) -> float:
        return float(torch.cat(self.per_image[name]).mean())


def _measure_batch(model: CBViLAForPreTraining, batch: dict[str, Tensor], sums: _Sums, losses: bool) -> None:
    output = model(**batch, loss_weights=None if losses else _visual_query_weights(model))
    if losses:
        terms = {"loss": output.loss, **{f"loss_{name}": value for name, value in output.losses.items()}}
        for name, value in terms.items():
            sums.per_image[name].append(value.float().expand(len(batch["input_ids"])).cpu())
    if output.codebook_indices is not None:
        sums.add_codes(model.cbvila.quantizer.global_indices(output.codebook_indices))
    if CBViLAPixel.name in output.losses:
        sums.per_image[CBViLAPixel.name].append(
            output.losses[CBViLAPixel.name].expand(len(output.codebook_indices)).cpu()
        )
        sums.add_pixels(batch["pixel_values"])
    if output.mim_logits is not None:
        _measure_mim(model, batch, output.codebook_indices, output.mim_logits, sums)


def _measure_mim(
    model: CBViLAForPreTraining, batch: dict[str, Tensor], indices: Tensor, true_logits: Tensor, sums: _Sums
) -> None:
    """Measures MIM with the true captions and with shifted ones, for the same images and masks.

    Args:
        model: The model.
        batch: The batch with its true captions.
        indices: (B, N) or (B, N, R) code indices.
        true_logits: The logits of masked patches with the true captions.
        sums: What to add the measurements to.
    """
    mask = batch["bool_masked_pos"]
    targets = indices[mask]
    shuffled = {**batch, **{name: batch[name].roll(1, dims=0) for name in _TEXT_INPUTS}}
    wrong = model(**shuffled, loss_weights=_visual_query_weights(model))
    sizes = model.cbvila.quantizer.book_sizes
    for name, logits in (("true", true_logits), ("shuffled", wrong.mim_logits)):
        books = list(zip(logits.float().split(list(sizes), dim=-1), by_book(targets, sizes), strict=True))
        entropy = torch.stack([F.cross_entropy(scores, codes, reduction="none") for scores, codes in books]).mean(0)
        right = torch.stack([(scores.argmax(-1) == codes).float() for scores, codes in books]).mean(0)
        entropy, right = (value.view(len(mask), -1).mean(-1) for value in (entropy, right))
        sums.per_image[f"mim_{name}"].append(entropy.cpu())
        sums.per_image[f"accuracy_{name}"].append(right.cpu())


def _visual_query_weights(model: CBViLAForPreTraining) -> dict[str, float]:
    """Returns loss weights that switch off every term except those of visual queries."""
    others = [o for o in model.active_objectives(None) if "visual_queries" not in o.needs]
    return {term: 0.0 for objective in others for term in objective.loss_weights(objective.options)}


def _loss_metrics(sums: _Sums) -> dict[str, float]:
    return {name: sums.mean(name) for name in sums.per_image if name.startswith("loss")}


def _codebook_metrics(sums: _Sums) -> dict[str, float]:
    """Returns usage and perplexity of the codebook; nothing for a model without one."""
    if sums.code_counts is None:
        return {}
    books = sums.counts_by_book()
    statistics = codebook_statistics(torch.cat([book.sum(0) for book in books]), sums.book_sizes)
    perplexities = torch.stack([codebook_statistics(book.sum(0))["perplexity"] for book in books])
    return {
        **{f"codebook_{name}": float(value) for name, value in statistics.items()},
        "codebook_window_tokens": int(books[0].sum()),
        "ln_perplexity": float(perplexities.log().mean()),
    }


def _saved_metrics(model: CBViLAForPreTraining) -> dict[str, float]:
    """Returns what the quantizer saves of its metrics in training."""
    saved = model.cbvila.quantizer.saved_metrics() if model.cbvila.has_quantizer else {}
    return {f"codebook_{name}": value for name, value in saved.items()}


def _mim_metrics(sums: _Sums, seed: int) -> dict[str, float]:
    """Returns the metrics of MIM, with the accuracy of always predicting the most frequent code of each position."""
    if not sums.per_image["mim_true"]:
        return {}
    books = sums.counts_by_book()
    true, shuffled = (torch.cat(sums.per_image[f"mim_{name}"]).numpy() for name in ("true", "shuffled"))
    images = books[0][0].sum()
    likeliest = torch.stack([book.amax(1) for book in books])
    return {
        CBViLAMIM.name: float(true.mean()),
        "mim_shuffled_caption": float(shuffled.mean()),
        **mean_with_interval("mim_advantage", shuffled - true, seed),
        "mim_accuracy": sums.mean("accuracy_true"),
        "mim_accuracy_shuffled_caption": sums.mean("accuracy_shuffled"),
        "mim_accuracy_position_floor": float((likeliest / images).mean()),
    }


def _pixel_metrics(sums: _Sums) -> dict[str, float]:
    """Returns the reconstruction error, and that of predicting the mean colour."""
    if not sums.per_image[CBViLAPixel.name]:
        return {}
    pixels, total, squares = sums.pixel_sums.unbind(1)
    variance = squares / pixels - (total / pixels).square()
    return {CBViLAPixel.name: sums.mean(CBViLAPixel.name), "pixel_floor": float(variance.mean())}
