"""Whether a codebook means anything: use, words that go with codes, and what can be told from codes alone.

It needs no more of a tokenizer than indices, so that tokenizers of any origin stand beside each other.

Shapes: M images, N tokens of an image, K codes.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..data.measured_pairs import MeasuredPairs
from ..metrics.code_counts import code_histograms, frequent_words, word_presence
from ..metrics.code_meaning import measure_code_meaning
from ..metrics.code_retrieval import code_retrieval_hits
from ..metrics.intervals import mean_with_interval
from ..metrics.linear_probe import probe_hits
from ..model.codebook_statistics_cbvila import codebook_statistics
from ..model.item_lists_cbvila import by_position
from ..model.nearest_codes_cbvila import count_codes
from .image_tokenizers import ImageTokenizer, bits_per_token, book_sizes_of
from .row_words import RowWords

_FEWEST_IMAGES = 10  # for a probe, or for halves to retrieve from
_MOST_IMAGES = 5000  # whose histograms are in memory
_MOST_PROBED = 2000  # by a probe, whose cost grows with their square


def codebook_report(
    tokenizer: ImageTokenizer,
    rows: Sequence[dict[str, Any]],
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, float]:
    """Measures the codebook of any tokenizer on images with captions and, optionally, labels.

    Args:
        tokenizer: A function from PIL images to indices; see [`ImageTokenizer`] and the adapters beside it.
        rows: M rows with `image`, `captions` and, optionally, labels and attributes as `keywords`.
        batch_size: Images at a time.
        seed: Seed of shuffles, folds and intervals.
        progress: Whether to show a progress bar.

    Returns:
        `codebook_usage`, `codebook_perplexity` and `codebook_top_share` over `codebook_window_tokens` tokens,
        `bits_per_token`, and what [`measure_codes`] returns.

    Raises:
        ValueError: If a row cannot be read, or the tokenizer returns no indices.
    """
    indices, words = tokenize_rows(tokenizer, rows, batch_size, progress)
    counts, books = count_codes(indices, tokenizer.num_codes).double(), book_sizes_of(tokenizer)
    return {
        **{f"codebook_{name}": float(value) for name, value in codebook_statistics(counts, books).items()},
        "codebook_window_tokens": indices.numel() // len(books),
        "bits_per_token": bits_per_token(tokenizer, indices),
        **measure_codes(indices, tokenizer.num_codes, words, seed),
    }


def tokenize_rows(
    tokenizer: ImageTokenizer, rows: Sequence[dict[str, Any]], batch_size: int = 64, progress: bool = True
) -> tuple[Tensor, RowWords]:
    """Returns the indices (M, N) of the images of rows, and the words of their captions and labels."""
    rows = by_position(rows, "rows")
    rows = rows if isinstance(rows, MeasuredPairs) else MeasuredPairs(rows)  # which name what cannot be read
    found, words = list[Tensor](), RowWords()
    for start in tqdm(range(0, len(rows), batch_size), desc="Tokenizing", disable=not progress):
        chunk = [rows[row] for row in range(start, min(start + batch_size, len(rows)))]
        found.append(_checked(tokenizer([row["image"] for row in chunk]), len(chunk), tokenizer.num_codes))
        for row in chunk:
            words.add(row)
    if not found:
        raise ValueError("There are no images to measure: rows is empty.")
    if len({indices.shape[1] for indices in found}) > 1:
        raise ValueError("Images have different numbers of tokens: have the tokenizer resize them to one size.")
    return torch.cat(found), words


def measure_codes(indices: Tensor, num_codes: int, words: RowWords, seed: int = 0) -> dict[str, float]:
    """Measures what codes tell about words; nothing but counts and one ridge regression is fitted.

    Of more than 5,000 images as many are drawn, and of these 2,000 for the probe.

    Args:
        indices: (M, N) codes of images.
        num_codes: K.
        words: The words of the M images.
        seed: Seed of shuffles, folds and intervals.

    Returns:
        Each with `_floor`, `_low` and `_high` (95 % interval over images), left out with too few images or words:

        - `code_purity`, `code_word_mutual_information`: as [`measure_code_meaning`] defines them, over the words of
          [`meaningful_words`];
        - `code_probe_accuracy`: of a linear probe on histograms of codes, for images that it was not fitted to. It
          predicts the label if every image has one, else the presence of each label or, without labels, word. The
          floor is always to say what is more frequent;
        - `code_retrieval_r1`: how often the image of a caption comes first among half of the images, by counts of
          codes and words of the other half. The floor is chance.
    """
    if len(indices) > _MOST_IMAGES:
        drawn = torch.randperm(len(indices), generator=torch.Generator().manual_seed(seed))[:_MOST_IMAGES]
        indices, words = indices[drawn], words.chosen(drawn.tolist())
    histograms = code_histograms(indices, num_codes)
    metrics = measure_code_meaning(histograms, word_presence(words.all, meaningful_words(words)), seed)
    if len(indices) < _FEWEST_IMAGES:
        return metrics
    vocabulary, labels = frequent_words(words.captions), frequent_words(words.labels, largest_share=1)
    if vocabulary:
        known, asked = word_presence(words.captions, vocabulary), word_presence(words.first, vocabulary)
        metrics |= _retrieval_metrics(histograms, known, asked, seed)
    targets = word_presence(words.labels, labels) if labels else word_presence(words.captions, vocabulary)
    return metrics | _probe_metrics(histograms, targets, words.has_one_label_each, seed)


def meaningful_words(words: RowWords) -> list[str]:
    """Returns the words and labels that codes are compared with, in alphabetical order.

    They are the most frequent ones, without those of one image or of most images, which tell no image from another.
    Labels of most images are kept where every image has exactly one label.
    """
    if not words.has_one_label_each:
        return frequent_words(words.all)
    return sorted({*frequent_words(words.captions), *frequent_words(words.labels, largest_share=1)})


def _probe_metrics(histograms: Tensor, targets: Tensor, exclusive: bool, seed: int) -> dict[str, float]:
    if targets.shape[1] < (2 if exclusive else 1):
        return {}
    if exclusive:  # without images whose label is too rare
        histograms, targets = histograms[targets.any(1)], targets[targets.any(1)]
    chosen = torch.randperm(len(histograms), generator=torch.Generator().manual_seed(seed))[:_MOST_PROBED]
    histograms, targets = histograms[chosen], targets[chosen]
    histograms = histograms[:, histograms.any(0)]
    # Square roots of shares: rare codes count for more, as differences of shares are read by Hellinger's distance.
    hits, floor = probe_hits((histograms / histograms.sum(1, keepdim=True)).sqrt(), targets, exclusive, seed)
    return {**mean_with_interval("code_probe_accuracy", hits.numpy(), seed), "code_probe_accuracy_floor": floor}


def _retrieval_metrics(histograms: Tensor, known: Tensor, asked: Tensor, seed: int) -> dict[str, float]:
    hits, floor = code_retrieval_hits(histograms, known, asked, seed)
    return {**mean_with_interval("code_retrieval_r1", hits.numpy(), seed), "code_retrieval_r1_floor": floor}


def _checked(indices: Tensor, images: int, num_codes: int) -> Tensor:
    """Returns indices as (B, N). ValueError if they are none."""
    if not isinstance(indices, Tensor) or indices.is_floating_point() or indices.ndim not in (2, 3):
        form = f"{indices.dtype} {tuple(indices.shape)}" if isinstance(indices, Tensor) else type(indices).__name__
        raise ValueError(f"A tokenizer returns integers (B, N) or (B, rows, columns), and this one returned {form}.")
    indices = indices.flatten(1).long().cpu()
    if len(indices) != images:
        raise ValueError(
            f"A tokenizer returns a row for each image, and this one returned {len(indices)} of {images}."
        )
    if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < num_codes:
        raise ValueError(
            f"The tokenizer has {num_codes} codes, and returned {int(indices.min())} to {int(indices.max())}: indices "
            "start at 0."
        )
    return indices
