"""Scores pairs of images and texts with the matching head, in chunks of images and batches of texts.

Shapes: P pairs, S visual tokens, L text tokens, D hidden size.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..data.pairs import stable_id
from .encoding import evaluating
from .gallery import Gallery, RetrievalModel
from .gallery_identity import weights_id
from .matching import KeysValues, PackedTexts, match_texts
from .shards import Shards, tables


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
