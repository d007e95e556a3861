"""Recall of images by captions and of captions by images, by similarity and with matching on top.

Shapes: M rows or images, T texts, Q queries.
"""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..metrics.intervals import mean_with_interval
from ..metrics.retrieval_metrics import first_relevant_ranks
from ..model.item_lists_cbvila import by_position
from ..model.processing_cbvila import CBViLAProcessor
from .calibration import calibrate
from .gallery import Encoded, RetrievalModel, cosine_similarity
from .recall_names import DEPTHS
from .reranking import Candidates, TwoStageRetrieval, encode_both, rerank, reranked_scores
from .retrieval_order import RetrievalOrder, better_order
from .score_weighting import JudgedCandidates, cross_fitted_weights, fitted_similarity_weight

_QUERIES = 512  # ranked at a time: their scores, in fp64, are all that grows with them


def check_matches(rerank_k: int, config: Any) -> None:
    """Raises a ValueError if candidates are to be re-ranked by a model that cannot match them."""
    if rerank_k and not config.needs("hard_negatives"):
        raise ValueError(
            f"rerank_k={rerank_k}: the model was trained without matching (ITM has weight 0), which would order "
            "candidates; leave it out."
        )


def measure_retrieval(
    model: RetrievalModel,
    processor: CBViLAProcessor,
    rows: Sequence[dict[str, Any]],
    rerank_k: int | None = 64,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, float]:
    """Measures zero-shot retrieval among M rows with `image` and `captions`, of which the first is used.

    Rows with the same caption are true matches of each other.

    Args:
        model: The model.
        processor: Of the model.
        rows: The rows.
        rerank_k: How many candidates per query matching re-ranks; `None` or 0: none. A model that was trained without
            matching (ITM has weight 0) re-ranks none.
        batch_size: Images, or texts, encoded at a time.
        seed: Seed of the intervals.
        progress: Whether to show bars.

    Returns:
        `text_retrieval_r1`, `_r5`, `_r10` (texts found by images) and `image_retrieval_r1` … by cosine similarity;
        with `rerank_k` also `text_retrieval_r1_reranked` …, by matching alone, as in ALBEF, `…_combined`, by the sum
        of both ([`Candidates.with_similarity`]), and `…_fitted`, by their sum with a weight for similarity that was
        fitted on the other half of the queries; fitted on all of them it is `similarity_weight`. Of these three
        `…_gain` is what the order adds to similarity. Recalls and gains, of the same queries, have `_low` and `_high`,
        their 95 % bootstrap interval over queries. `match_slope` and `match_offset` turn the scores of
        the best of these orders into probabilities ([`Calibration`]); `match_error`, `match_precision` and
        `match_answered` are their [`CalibrationQuality`].
        Empty, with a warning, where the model cannot compare images with texts.
    """
    widths = model.config.vision_config.hidden_size, model.config.text_config.hidden_size
    if not model.cbvila.has_contrastive_head and widths[0] != widths[1]:
        warnings.warn(
            f"No retrieval metrics: this model has no contrastive head (ITC has weight 0), and its encoders' widths "
            f"{widths[0]} and {widths[1]} differ, so that similarities are not defined.",
            stacklevel=2,
        )
        return {}
    rows = by_position(rows, "rows")
    captions = [rows[i]["captions"][:1] for i in range(len(rows))]
    return measure_gallery(model, processor, ImagesOfRows(rows), captions, rerank_k, batch_size, seed, progress)


@torch.no_grad()
def measure_gallery(
    model: RetrievalModel,
    processor: CBViLAProcessor,
    images: Sequence[Any],
    captions: Sequence[Sequence[str]],
    rerank_k: int | None = 64,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = True,
    max_length: int = 30,
    own_captions_only: bool = False,
    folder: str | Path | None = None,
    together: bool = False,
) -> dict[str, float]:
    """Measures retrieval among M images and all T of their captions: an image is found by each, and finds any of them.

    Args:
        model: The model.
        processor: Of the model.
        images: The images.
        captions: The captions of each, at least one.
        rerank_k: As of [`measure_retrieval`].
        batch_size: Images, or texts, encoded at a time.
        seed: Seed of the intervals.
        progress: Whether to show bars.
        max_length: Longest caption in tokens; longer ones are cut.
        own_captions_only: Whether only an image's own captions are true of it, as in the published protocols, or
            equal captions of other images as well.
        folder: Where to keep what is encoded and matched, for more than memory holds; killed, the same call goes on.
            In memory are the embeddings, and for some queries at a time their similarity to everything.
        together: Whether all processes of torch's group, which call this with the same arguments, share the work.

    Returns:
        As [`measure_retrieval`]. The intervals of captions as queries are over images, whose captions are resampled
        together.
    """
    texts, owners = [text for row in captions for text in row], caption_image_index(captions)
    matches = bool(rerank_k) and model.config.needs("hard_negatives")
    # a folder may be asked again, for matching
    kept = matches or folder is not None
    options = batch_size, progress, folder, max_length, kept, together
    galleries = encode_both(model, processor, images, texts, *options)
    true = TrueMatches(texts, owners, own_captions_only)
    found_images, found_texts = (Encoded(torch.cat(list(gallery.blocks)), []) for gallery in galleries)
    by_similarity = _hits(found_images, found_texts, None, true)
    metrics = _recalls(by_similarity, "", seed)
    if rerank_k and matches:
        found = rerank(model, *galleries, rerank_k, progress, folder and Path(folder) / "matches", together)
        metrics |= _recalls(_hits(found_images, found_texts, found, true), "_reranked", seed, by_similarity)
        scale = float(model.cbvila.similarity_scale())
        judged = [
            _judged(found.texts_of_images, true.texts_of, scale),
            _judged(found.images_of_texts, true.images_of, scale),
        ]
        by_both: dict[str, Sequence[float | Tensor]] = {
            "_combined": (1.0, 1.0),
            "_fitted": cross_fitted_weights(judged),
        }
        for ending, weights in by_both.items():
            pairs = zip(found, weights, strict=True)
            both = TwoStageRetrieval(*(candidates.with_similarity(scale * weight) for candidates, weight in pairs))
            metrics |= _recalls(_hits(found_images, found_texts, both, true), ending, seed, by_similarity)
        metrics["similarity_weight"] = fitted_similarity_weight(judged)
        metrics |= _calibration(judged, better_order(metrics, rerank_k), scale)
    return metrics


def _calibration(judged: Sequence[JudgedCandidates], order: RetrievalOrder | None, scale: float) -> dict[str, float]:
    """Returns how the scores by which candidates are ordered become probabilities, and how good these are."""
    assert order is not None  # matching was measured
    by_order = [kind._replace(scores=order.scores(kind, scale)) for kind in judged]
    found = calibrate(by_order)
    if found is None:
        return {}
    (slope, offset), quality = found
    return {
        "match_slope": slope,
        "match_offset": offset,
        **{f"match_{name}": value for name, value in quality._asdict().items()},
    }


def _judged(candidates: Candidates, truth: Callable[[slice], np.ndarray], scale: float) -> JudgedCandidates:
    """Returns candidates with the truth of each, which is looked up for some queries at a time."""
    rows = candidates.rows
    relevant = [torch.from_numpy(truth(part)).gather(1, rows[part]) for part in _slices(len(rows))]
    return JudgedCandidates(candidates.scores, scale * candidates.cosines, torch.cat(relevant))


def caption_image_index(captions: Sequence[Sequence[str]]) -> np.ndarray:
    """The image (T,) of each caption, when the captions of all images are put in a row."""
    return np.repeat(np.arange(len(captions)), [len(row) for row in captions])


class TrueMatches:
    """Which texts are true of which images, for some of either at a time.

    Args:
        texts: T captions, those of each image after each other.
        owners: (T,) the image of each, all M of them.
        own_only: Whether of equal captions only an image's own count.
    """

    def __init__(self, texts: Sequence[str], owners: np.ndarray, own_only: bool) -> None:
        number = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        self.distinct = np.asarray([number[text] for text in texts])
        self.owners, self.own_only = owners, own_only
        self.images = np.arange(owners[-1] + 1)
        self.first_texts = np.searchsorted(owners, self.images)

    def texts_of(self, images: slice) -> np.ndarray:
        """(q, T) bool, for some images."""
        chosen = self.images[images]
        if self.own_only:
            return chosen[:, None] == self.owners[None, :]
        theirs = np.flatnonzero(np.isin(self.owners, chosen))
        true = np.zeros((len(chosen), self.distinct.max() + 1), dtype=bool)
        true[self.owners[theirs] - chosen[0], self.distinct[theirs]] = True
        return true[:, self.distinct]

    def images_of(self, texts: slice) -> np.ndarray:
        """(q, M) bool, for some texts."""
        if self.own_only:
            return self.owners[texts][:, None] == self.images[None, :]
        equal = self.distinct[texts][:, None] == self.distinct[None, :]
        return np.logical_or.reduceat(equal, self.first_texts, axis=1)

    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """How many texts are true of each image (M,), and how many images of each text (T,)."""
        texts = [self.texts_of(part).sum(1) for part in _slices(len(self.images))]
        images = [self.images_of(part).sum(1) for part in _slices(len(self.owners))]
        return np.concatenate(texts), np.concatenate(images)


def true_matches(texts: Sequence[str], owners: np.ndarray, own_only: bool) -> np.ndarray:
    """(M, T) bool: which texts are true of which images; of equal texts all are, unless only an image's own count."""
    return TrueMatches(texts, owners, own_only).texts_of(slice(None))


def _slices(count: int) -> list[slice]:
    return [slice(start, start + _QUERIES) for start in range(0, count, _QUERIES)]


class _Hits(NamedTuple):
    """Which queries find a true item among their first ones."""

    found: np.ndarray  # (Q,) 0 or 1
    groups: np.ndarray | None  # (Q,) the image of each query, where several queries have one


def _recalls(
    hits: dict[str, _Hits], ending: str, seed: int, by_similarity: dict[str, _Hits] | None = None
) -> dict[str, float]:
    """Recalls both ways at all depths, and what they gain over those by similarity."""
    metrics: dict[str, float] = {}
    for name, (found, groups) in hits.items():
        metrics |= mean_with_interval(f"{name}{ending}", found, seed, groups)
        if by_similarity is not None:
            metrics |= mean_with_interval(f"{name}{ending}_gain", found - by_similarity[name].found, seed, groups)
    return metrics


def _hits(images: Encoded, texts: Encoded, found: TwoStageRetrieval | None, true: TrueMatches) -> dict[str, _Hits]:
    """Hits of each recall, from embeddings of M images and T texts; with candidates, these come first."""

    def texts_by_images(part: slice) -> Tensor:
        return cosine_similarity(Encoded(images.embeds[part], []), texts)

    def images_by_texts(part: slice) -> Tensor:
        return cosine_similarity(images, Encoded(texts.embeds[part], [])).T

    hits: dict[str, _Hits] = {}
    ways: tuple[tuple[str, int, Callable, Callable, Candidates | None, np.ndarray | None], ...] = (
        ("text", len(images.embeds), texts_by_images, true.texts_of, found and found.texts_of_images, None),
        ("image", len(texts.embeds), images_by_texts, true.images_of, found and found.images_of_texts, true.owners),
    )
    for way, queries, scores, relevant, candidates, groups in ways:
        ranks = np.concatenate([_ranks(scores(part), relevant(part), candidates, part) for part in _slices(queries)])
        for depth in DEPTHS:
            hits[f"{way}_retrieval_r{depth}"] = _Hits((ranks < depth).astype(float), groups)
    return hits


def _ranks(similarity: Tensor, relevant: np.ndarray, candidates: Candidates | None, part: slice) -> np.ndarray:
    """Ranks (q,) of the best relevant item for a part of the queries, from similarities and truth (q, G)."""
    scores = similarity.numpy()
    if candidates is not None:
        scores = reranked_scores(similarity, Candidates(*(tensor[part] for tensor in candidates)))
    return first_relevant_ranks(scores, relevant)


class ImagesOfRows(Sequence):
    """The images of rows, read one by one."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]["image"]

    def fingerprint(self) -> int | None:
        """The fingerprint of the rows, if they have one."""
        return self.rows.fingerprint() if hasattr(self.rows, "fingerprint") else None
