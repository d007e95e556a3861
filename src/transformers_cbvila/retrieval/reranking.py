"""Two-stage retrieval, as in ALBEF: similarity selects candidates from the gallery, matching (Eq. 5) re-ranks them.

Similarity costs one product per pair, matching a pass through the fusion encoder (see `matching.py`).

Shapes: M images, T texts, P pairs, Q queries, G items of a gallery, k candidates per query, S visual tokens.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..data.pairs import stable_id
from ..model.processing_cbvila import CBViLAProcessor
from .encoding import GalleryEncoder, evaluating, weights_id
from .gallery import Gallery, RetrievalModel, check_comparable
from .matching import KeysValues, PackedTexts, match_texts
from .shards import Shards, tables
from .stored_gallery import store_gallery


class Candidates(NamedTuple):
    """Candidates of each query, best first: `rows` (Q, k) of the gallery, `scores` (Q, k) and `cosines` (Q, k)."""

    rows: Tensor
    scores: Tensor
    cosines: Tensor

    def with_similarity(self, scale: float | Tensor) -> "Candidates":
        """Re-ranks the candidates by matching score + scale x cosine.

        If the negatives of ITM are drawn with probability proportional to exp(scale x cosine), its log-odds are the
        true ones minus scale x cosine; the sum restores them.
        """
        return _ordered(self.rows, self.scores + scale * self.cosines, self.cosines)


class TwoStageRetrieval(NamedTuple):
    """Candidate texts of the M images and candidate images of the T texts, by log-odds of matching."""

    texts_of_images: Candidates
    images_of_texts: Candidates


def retrieve_in_two_stages(
    model: RetrievalModel,
    processor: CBViLAProcessor,
    images: Iterable[Any],
    texts: Iterable[str],
    k: int = 64,
    batch_size: int = 64,
    progress: bool = True,
    folder: str | Path | None = None,
) -> TwoStageRetrieval:
    """Encodes images and texts, selects the k most similar ones in both directions, and re-ranks them by matching.

    A pair that is a candidate in both directions is matched once.

    Args:
        model: The model.
        processor: Its processor.
        images: M images.
        texts: T texts.
        k: Candidates per query.
        batch_size: Items encoded at a time.
        progress: Whether to show progress bars.
        folder: Where to store everything, for more than fits in memory. Calling again resumes an interrupted run.

    Raises:
        ValueError: If `k` is not positive, there is no image or no text, or the model cannot compare them by
            similarity (see [`check_comparable`]).
    """
    galleries = encode_both(model, processor, images, texts, batch_size, progress, folder)
    return rerank(model, *galleries, k, progress, folder and Path(folder) / "matches")


def encode_both(
    model: RetrievalModel,
    processor: CBViLAProcessor,
    images: Iterable[Any],
    texts: Iterable[str],
    batch_size: int = 64,
    progress: bool = True,
    folder: str | Path | None = None,
    max_length: int = 30,
    keep_states: bool = True,
) -> tuple[Gallery, Gallery]:
    """Encodes images and texts into memory or into a folder.

    Args:
        model: The model.
        processor: Its processor.
        images: M images.
        texts: T texts.
        batch_size: Items encoded at a time.
        progress: Whether to show progress bars.
        folder: Where to store them, for more than fits in memory. Calling again resumes an interrupted run.
        max_length: Maximum number of tokens per text.
        keep_states: Whether to keep the states that matching needs.
    """

    def encode(kind: str, items: Iterable[Any]) -> Gallery:
        encoder = GalleryEncoder(model, processor, kind, max_length, batch_size, progress, keep_states)
        return encoder.encode(items) if folder is None else store_gallery(Path(folder) / kind, encoder, items)

    return encode("images", images), encode("texts", texts)


def rerank(
    model: RetrievalModel,
    images: Gallery,
    texts: Gallery,
    k: int = 64,
    progress: bool = True,
    folder: str | Path | None = None,
) -> TwoStageRetrieval:
    """Selects and re-ranks candidates, as [`retrieve_in_two_stages`], of encoded images and texts.

    Args:
        model: The model.
        images: M encoded images.
        texts: T encoded texts.
        k: Candidates per query.
        progress: Whether to show a progress bar.
        folder: Where to store scores. Calling again resumes an interrupted run.
    """
    check_comparable(images, texts)
    text_cosines, text_rows = most_similar(images.blocks, texts.blocks, k)
    image_cosines, image_rows = most_similar(texts.blocks, images.blocks, k)
    num_texts = len(image_rows)
    wanted = [
        torch.arange(len(text_rows)).unsqueeze(1) * num_texts + text_rows,
        image_rows * num_texts + torch.arange(num_texts).unsqueeze(1),
    ]
    pairs, place = torch.cat([numbers.flatten() for numbers in wanted]).unique(return_inverse=True)
    pairs = torch.stack([pairs // num_texts, pairs % num_texts], dim=1)
    logits = match_pairs(model, images, texts, pairs, progress=progress, folder=folder)
    of_texts, of_images = logits[place].split([text_rows.numel(), image_rows.numel()])
    return TwoStageRetrieval(
        _ordered(text_rows, of_texts.view_as(text_rows), text_cosines),
        _ordered(image_rows, of_images.view_as(image_rows), image_cosines),
    )


def most_similar(
    queries: Sequence[Tensor], gallery: Sequence[Tensor], k: int, chunk: int = 8192
) -> tuple[Tensor, Tensor]:
    """Finds the k (or all G) items of a gallery that are most similar to each query.

    The (Q, G) similarities are never in memory at once. Equally similar items stay in their order, on every device.

    Args:
        queries: Embeddings (q, E) in blocks, Q in all.
        gallery: Embeddings (g, E) in blocks, G in all.
        k: How many items to find.
        chunk: How many items are compared with up to 256 queries at a time.

    Returns:
        Their cosines (Q, k), the highest first, and their rows (Q, k).

    Raises:
        ValueError: If `k` is not positive.
    """
    if k < 1:
        raise ValueError(f"k={k} candidates per query: a shortlist has at least one.")
    found = [_best(part, gallery, k, chunk) for block in queries for part in block.split(256)]
    return torch.cat([cosines for cosines, _ in found]), torch.cat([rows for _, rows in found])


def _best(queries: Tensor, gallery: Sequence[Tensor], k: int, chunk: int) -> tuple[Tensor, Tensor]:
    """Finds the most similar items of one block of queries; a stable sort keeps earlier items ahead of equal ones."""
    cosines, rows, first = queries.new_empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.long), 0
    for part in _parts(gallery, chunk):
        cosines = torch.cat([cosines, queries @ part.T], dim=1)
        new = torch.arange(first, first + len(part)).expand(len(queries), -1)
        cosines, order = cosines.sort(dim=1, descending=True, stable=True)
        cosines, rows = cosines[:, :k], torch.cat([rows, new], dim=1).gather(1, order[:, :k])
        first += len(part)
    return cosines, rows


def _parts(blocks: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Yields rows in parts of about `size`: the blocks of a gallery on disk may be small."""
    waiting, rows = list[Tensor](), 0
    for block in (part for whole in blocks for part in whole.split(size)):
        if waiting and rows + len(block) > size:
            yield torch.cat(waiting)
            waiting, rows = [], 0
        waiting.append(block)
        rows += len(block)
    if waiting:
        yield torch.cat(waiting)


def match_pairs(
    model: RetrievalModel,
    images: Gallery,
    texts: Gallery,
    pairs: Tensor,
    images_per_chunk: int = 16,
    pairs_per_batch: int = 128,
    progress: bool = True,
    folder: str | Path | None = None,
    seconds_per_shard: float = 30.0,
) -> Tensor:
    """Scores pairs of images and texts with the matching head.

    Args:
        model: The model.
        images: Encoded images.
        texts: Encoded texts.
        pairs: (P, 2) rows of `images` and of `texts`.
        images_per_chunk: How many images' keys and values are on the device at a time (10 MB each in fp32, for a base
            model and 256 pixels).
        pairs_per_batch: Pairs in a pass through the fusion encoder.
        progress: Whether to show a progress bar.
        folder: Where to write scores. Calling again resumes an interrupted run.
        seconds_per_shard: About how often scores are written.

    Returns:
        (P,) log-odds of "matches" ([`matching_scores`]) in at least fp32, those of a pass through the whole model up
        to rounding.

    Raises:
        ValueError: If `folder` holds scores of other pairs or of another model.
    """
    if len(pairs) == 0:
        return torch.empty(0)
    text_rows, place = pairs[:, 1].unique(return_inverse=True)
    lengths = torch.tensor([len(texts.states[row]) for row in text_rows.tolist()])[place]
    # by image, and among the texts of one by length
    order = torch.from_numpy(np.lexsort((lengths.numpy(), pairs[:, 0].numpy())))
    options = images_per_chunk, pairs_per_batch, progress
    if folder is None:
        found = torch.cat(list(_matched(model, images, texts, pairs[order], 0, *options)))
    else:
        shards = Shards(folder, {"pairs": stable_id(pairs.numpy().tobytes()), "weights": weights_id(model)})
        rest = _matched(model, images, texts, pairs[order], shards.rows, *options)
        for part in _joined(rest, seconds_per_shard):
            shards.append({"logits": part.numpy()})
        found = torch.cat([torch.from_numpy(np.array(part["logits"])) for part in tables(folder)])
    return torch.empty_like(found).index_copy_(0, order, found)


def _joined(parts: Iterator[Tensor], seconds: float) -> Iterator[Tensor]:
    """Concatenates parts that arrive within `seconds` of each other."""
    waiting, since = list[Tensor](), time.monotonic()
    for part in parts:
        waiting.append(part)
        if time.monotonic() - since >= seconds:
            yield torch.cat(waiting)
            waiting, since = [], time.monotonic()
    if waiting:
        yield torch.cat(waiting)


def _matched(
    model: Any,
    images: Gallery,
    texts: Gallery,
    pairs: Tensor,
    done: int,
    images_per_chunk: int,
    pairs_per_batch: int,
    progress: bool,
) -> Iterator[Tensor]:
    """Yields the logits of pairs (P, 2) that are sorted by image, without the first `done`, batch by batch."""
    if done == len(pairs):
        return
    image_rows, counts = pairs[done:, 0].unique_consecutive(return_counts=True)
    with tqdm(total=len(pairs), initial=done, desc="Matching pairs", disable=not progress) as bar:
        for rows, sizes in zip(image_rows.split(images_per_chunk), counts.split(images_per_chunk), strict=True):
            with evaluating(model):
                tokens = torch.stack([images.states[row] for row in rows.tolist()]).to(model.device)
                keys_values = model.cbvila.fusion_model.keys_values(model.cbvila.image_states_for_text(tokens))
            for batch in torch.arange(len(rows)).repeat_interleave(sizes).split(pairs_per_batch):
                states = [texts.states[row] for row in pairs[done : done + len(batch), 1].tolist()]
                with evaluating(model):
                    logits = _match(model, states, keys_values, batch)
                done += len(batch)
                bar.update(len(batch))
                yield logits


def _match(model: Any, states: list[Tensor], keys_values: KeysValues, images: Tensor) -> Tensor:
    """Returns the logits (P,) of texts, by their states (L, D), with images (P,), rows of the keys and values."""
    lengths, order = torch.tensor([len(text) for text in states]).sort(stable=True)
    hidden = torch.cat([states[row] for row in order.tolist()]).unsqueeze(0).to(model.device)
    packed = PackedTexts(lengths, images[order], model.device)
    return match_texts(model, hidden, packed, keys_values).cpu()[order.argsort()]


def _ordered(rows: Tensor, scores: Tensor, cosines: Tensor) -> Candidates:
    """Sorts candidates by score; equal scores stay in their order."""
    best_first = scores.sort(dim=1, descending=True, stable=True)
    return Candidates(rows.gather(1, best_first.indices), best_first.values, cosines.gather(1, best_first.indices))


def reranked_scores(similarity: Tensor, candidates: Candidates) -> np.ndarray:
    """Returns scores (Q, G) that rank the whole gallery: candidates first, then the others by similarity (Q, G).

    Candidates keep their scores; the similarities of the others are shifted below the lowest of these.
    """
    others, scores = similarity.double(), candidates.scores.double()
    drop = others.amax(dim=1, keepdim=True) - scores.amin(dim=1, keepdim=True) + 1
    return (others - drop).scatter_(1, candidates.rows, scores).numpy()
