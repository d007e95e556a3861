"""Two-stage retrieval: similarities choose candidates among everything, matching (Eq. 5) orders them, as in ALBEF.

Similarities cost one product per pair; matching costs a pass through the fusion encoder. What of that pass depends on
the image alone, the keys and values of its tokens, is more than half of it, and is computed once per image.

Shapes: M images, T texts, P pairs, Q queries, G items of a gallery, k candidates per query, S visual tokens.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from ..model.losses_cbvila import at_least_fp32
from ..model.processing_cbvila import CBViLAProcessor
from .gallery import Encoded, RetrievalModel, cosine_similarity, encode_images, encode_texts, evaluating


class Candidates(NamedTuple):
    """For each query k `rows` (Q, k) of the gallery, the best match first, and their matching `logits` (Q, k)."""

    rows: Tensor
    logits: Tensor


class TwoStageRetrieval(NamedTuple):
    """Cosines (M, T) of all pairs; the candidate texts of the M images and the candidate images of the T texts."""

    similarity: Tensor
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
) -> TwoStageRetrieval:
    """Encodes images and texts once, takes the k most similar both ways, and orders them by matching.

    A pair that is a candidate both ways is matched once.

    Raises:
        ValueError: If `k` is not positive, there is no image or no text, or the model cannot compare them by
            similarity (see [`cosine_similarity`]).
    """
    encoded_images = encode_images(model, processor, images, batch_size, progress)
    encoded_texts = encode_texts(model, processor, texts, batch_size=batch_size, progress=progress)
    return rerank(model, encoded_images, encoded_texts, k, progress)


def rerank(
    model: RetrievalModel, images: Encoded, texts: Encoded, k: int = 64, progress: bool = True
) -> TwoStageRetrieval:
    """The same for images and texts that are encoded already."""
    similarity = cosine_similarity(images, texts)
    text_rows, image_rows = shortlist(similarity, k), shortlist(similarity.T, k)
    num_texts = similarity.shape[1]
    wanted = [
        torch.arange(len(text_rows)).unsqueeze(1) * num_texts + text_rows,
        image_rows * num_texts + torch.arange(num_texts).unsqueeze(1),
    ]
    pairs, place = torch.cat([numbers.flatten() for numbers in wanted]).unique(return_inverse=True)
    logits = match_pairs(
        model, images, texts, torch.stack([pairs // num_texts, pairs % num_texts], dim=1), progress=progress
    )
    of_texts, of_images = logits[place].split([text_rows.numel(), image_rows.numel()])
    return TwoStageRetrieval(
        similarity,
        _ordered(text_rows, of_texts.view_as(text_rows)),
        _ordered(image_rows, of_images.view_as(image_rows)),
    )


def shortlist(similarity: Tensor, k: int) -> Tensor:
    """The k (or all G) most similar items of the gallery for each query: rows (Q, k) from similarities (Q, G).

    Of equally similar items the first come first, on every device.
    """
    if k < 1:
        raise ValueError(f"k={k} candidates per query: a shortlist has at least one.")
    # in chunks: a sort's indices take twice the memory of what is sorted
    return torch.cat([c.sort(dim=1, descending=True, stable=True).indices[:, :k] for c in similarity.split(256)])


def match_pairs(
    model: RetrievalModel,
    images: Encoded,
    texts: Encoded,
    pairs: Tensor,
    images_per_chunk: int = 16,
    pairs_per_batch: int = 64,
    progress: bool = True,
) -> Tensor:
    """How well texts match images, by the matching head.

    The device holds keys and values of `images_per_chunk` images at a time (for a base model and 256 pixels 10 MB
    each in fp32) and the fusion of `pairs_per_batch` pairs with texts of about the same length.

    Args:
        pairs: (P, 2) rows of `images` and of `texts`.

    Returns:
        (P,) logits of "matches" in at least fp32, those of a pass through the whole model up to rounding.
    """
    if len(pairs) == 0:
        return torch.empty(0)
    lengths = torch.tensor([len(states) for states in texts.states])[pairs[:, 1]]
    image_rows, image_places = pairs[:, 0].unique(return_inverse=True)
    logits = torch.empty(len(pairs), dtype=torch.promote_types(model.dtype, torch.float32))
    with evaluating(model), tqdm(total=len(pairs), desc="Matching pairs", disable=not progress) as bar:
        for number, chunk in enumerate(_chunks(image_places // images_per_chunk)):
            first = number * images_per_chunk
            tokens = torch.stack([images.states[row] for row in image_rows[first : first + images_per_chunk]])
            keys_values = model.cbvila.fusion_model.keys_values(model.cbvila.image_keys(tokens.to(model.device)))
            for batch in chunk[lengths[chunk].argsort()].split(pairs_per_batch):
                states = [texts.states[row] for row in pairs[batch, 1]]
                logits[batch] = _match(model, states, keys_values, image_places[batch] - first)
                bar.update(len(batch))
    return logits


def _chunks(chunk_of_pair: Tensor) -> tuple[Tensor, ...]:
    """The pairs of each chunk, from the chunk (P,) of each pair."""
    return chunk_of_pair.argsort(stable=True).split(chunk_of_pair.bincount().tolist())


def _match(model: RetrievalModel, states: list[Tensor], keys_values: list, image_index: Tensor) -> Tensor:
    """Logits (P,) of texts with states (L, D) each and the images that `image_index` (P,) names."""
    lengths = torch.tensor([len(text) for text in states])
    mask = (torch.arange(int(lengths.max())) < lengths.unsqueeze(1)).long()
    fused = model.cbvila.fusion_model(
        pad_sequence(states, batch_first=True).to(model.device),
        mask.to(model.device),
        encoder_keys_values=keys_values,
        encoder_index=image_index.to(model.device),
        num_queries=1,
    )
    return at_least_fp32(model.itm_head(fused.last_hidden_state[:, 0])[:, 1]).cpu()


def _ordered(rows: Tensor, logits: Tensor) -> Candidates:
    """Candidates by matching; those that match equally well stay in the order of similarity."""
    best_first = logits.sort(dim=1, descending=True, stable=True)
    return Candidates(rows.gather(1, best_first.indices), best_first.values)


def reranked_scores(similarity: Tensor, candidates: Candidates) -> np.ndarray:
    """One score (Q, G) that orders the whole gallery: candidates by matching, then the others by similarity (Q, G).

    Candidates have their logit, the others their similarity moved below the least of these; equal ones stay equal.
    """
    scores = similarity.double()
    logits = candidates.logits.double()
    drop = scores.amax(dim=1, keepdim=True) - logits.amin(dim=1, keepdim=True) + 1
    return (scores - drop).scatter_(1, candidates.rows, logits).numpy()
