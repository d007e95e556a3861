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
from ..data.measured_pairs import MeasuredPairs
from ..metrics.intervals import bootstrap_interval
from ..model.codebook_statistics_cbvila import codebook_statistics
from ..model.item_lists_cbvila import by_position
from ..model.losses_cbvila import by_book
from ..model.modeling_cbvila_pretraining import CBViLAForPreTraining
from ..model.nearest_codes_cbvila import count_codes
from ..model.objective_mim_cbvila import CBViLAMIM
from ..model.objective_pixel_cbvila import CBViLAPixel
from ..model.processing_cbvila import CBViLAProcessor
from ..retrieval.retrieval_figures import retrieval_figures

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
    rows = by_position(rows, "rows")
    model.eval()
    rows = rows if isinstance(rows, MeasuredPairs) else MeasuredPairs(rows)  # which name what cannot be read
    collate = CBViLADataCollatorForPreTraining(processor, model.config.vision_config.patch_size)
    found = _Found(model.cbvila.quantizer.book_sizes)
    for start in tqdm(range(0, len(rows), batch_size), desc="Inspecting", disable=not progress):
        chunk = [(i, rows[i]) for i in range(start, min(start + batch_size, len(rows)))]
        examples = [
            {"image": row["image"], "text": row["captions"][0], "generator": generator_for(seed, i)}
            for i, row in chunk
        ]
        batch = {name: tensor.to(model.device) for name, tensor in collate(examples).items()}
        _measure_batch(model, batch, found)
    retrieval = retrieval_figures(model, processor, rows, rerank_k, batch_size, seed, progress)
    return {**_codebook(found), **_mim(found, seed), **_pixels(found), **retrieval}


class _Found:
    """What was measured so far: a few numbers per image, and of words and pixels only what their figures are made of.

    Args:
        book_sizes: K of each of R books.

    Attributes:
        per_image: Numbers (B,) of each batch, by name.
        words: (N, ΣK) how often each code was chosen at each place.
        colours: (3, 3) for each channel the number of pixels, their sum and the sum of their squares, in fp64.
    """

    def __init__(self, book_sizes: Sequence[int]):
        self.book_sizes = list(book_sizes)
        self.per_image: dict[str, list[Tensor]] = defaultdict(list)
        self.words: Tensor | None = None
        self.colours = torch.zeros(3, 3, dtype=torch.float64)

    def add_words(self, indices: Tensor) -> None:
        """Counts codes (B, N, R), numbered through all books."""
        patches, num_codes = indices.shape[1], sum(self.book_sizes)
        places = torch.arange(patches, device=indices.device).unsqueeze(-1) * num_codes + indices
        counts = count_codes(places, patches * num_codes).view(patches, num_codes).cpu()
        self.words = counts if self.words is None else self.words + counts

    def add_colours(self, pixel_values: Tensor) -> None:
        """Adds up images (B, 3, H, W)."""
        channels = pixel_values.cpu().double().transpose(0, 1).flatten(1)
        pixels = torch.full((3,), channels.shape[1], dtype=torch.float64)
        self.colours += torch.stack([pixels, channels.sum(1), channels.square().sum(1)], dim=1)

    def words_by_book(self) -> list[Tensor]:
        """How often each code of a book was chosen at each place, (N, K)."""
        assert self.words is not None
        return list(self.words.split(self.book_sizes, dim=1))

    def mean(self, name: str) -> float:
        return float(torch.cat(self.per_image[name]).mean())


def _measure_batch(model: CBViLAForPreTraining, batch: dict[str, Tensor], found: _Found) -> None:
    """Adds a batch's measurements to what was found."""
    output = model(**batch, loss_weights=_of_images_alone(model))
    found.add_words(model.cbvila.quantizer.global_indices(output.codebook_indices))
    if CBViLAPixel.name in output.losses:
        found.per_image[CBViLAPixel.name].append(
            output.losses[CBViLAPixel.name].expand(len(output.codebook_indices)).cpu()
        )
        found.add_colours(batch["pixel_values"])
    if output.mim_logits is not None:
        _measure_mim(model, batch, output, found)


def _measure_mim(model: CBViLAForPreTraining, batch, output, found: _Found) -> None:
    """Adds MIM with the true caption and with the neighbour's, of the same image with the same masks."""
    mask = batch["bool_masked_pos"]
    targets = output.codebook_indices[mask]
    shuffled = {**batch, **{name: batch[name].roll(1, dims=0) for name in _TEXT_INPUTS}}
    wrong = model(**shuffled, loss_weights=_of_images_alone(model))
    sizes = model.cbvila.quantizer.book_sizes
    for name, logits in (("true", output.mim_logits), ("shuffled", wrong.mim_logits)):
        books = list(zip(logits.float().split(list(sizes), dim=-1), by_book(targets, sizes), strict=True))
        entropy = torch.stack([F.cross_entropy(scores, codes, reduction="none") for scores, codes in books]).mean(0)
        right = torch.stack([(scores.argmax(-1) == codes).float() for scores, codes in books]).mean(0)
        entropy, right = (value.view(len(mask), -1).mean(-1) for value in (entropy, right))
        found.per_image[f"mim_{name}"].append(entropy.cpu())
        found.per_image[f"accuracy_{name}"].append(right.cpu())


def _of_images_alone(model: CBViLAForPreTraining) -> dict[str, float]:
    """Loss weights that leave out every term but those of visual queries."""
    others = [o for o in model.active_objectives(None) if "visual_queries" not in o.needs]
    return {term: 0.0 for objective in others for term in objective.loss_weights(objective.options)}


def _codebook(found: _Found) -> dict[str, float]:
    """Figures of the words."""
    books = found.words_by_book()
    statistics = codebook_statistics(torch.cat([book.sum(0) for book in books]), found.book_sizes)
    perplexities = torch.stack([codebook_statistics(book.sum(0))["perplexity"] for book in books])
    return {
        **{f"codebook_{name}": float(value) for name, value in statistics.items()},
        "codebook_window_tokens": int(books[0].sum()),
        "ln_perplexity": float(perplexities.log().mean()),
    }


def _mim(found: _Found, seed: int) -> dict[str, float]:
    """Figures of MIM, with the accuracy of the best guess that knows a word's place alone."""
    if not found.per_image["mim_true"]:
        return {}
    books = found.words_by_book()
    true, shuffled = (torch.cat(found.per_image[f"mim_{name}"]).numpy() for name in ("true", "shuffled"))
    low, high = bootstrap_interval(shuffled - true, seed)
    images = books[0][0].sum()
    likeliest = torch.stack([book.amax(1) for book in books])
    return {
        CBViLAMIM.name: float(true.mean()),
        "mim_shuffled_caption": float(shuffled.mean()),
        "mim_advantage_low": low,
        "mim_advantage_high": high,
        "mim_accuracy": found.mean("accuracy_true"),
        "mim_accuracy_shuffled_caption": found.mean("accuracy_shuffled"),
        "mim_accuracy_position_floor": float((likeliest / images).mean()),
    }


def _pixels(found: _Found) -> dict[str, float]:
    """Error of drawing images from their words, and of predicting the mean colour."""
    if not found.per_image[CBViLAPixel.name]:
        return {}
    pixels, total, squares = found.colours.unbind(1)
    variance = squares / pixels - (total / pixels).square()
    return {CBViLAPixel.name: found.mean(CBViLAPixel.name), "pixel_floor": float(variance.mean())}
