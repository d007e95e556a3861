"""Similarity of all pairs of a batch where an image has an embedding for each query.

Shapes: b local pairs, B pairs of all processes in training (otherwise b), Q queries, E embedding size.
"""

import torch
from torch import Tensor

from .pair_ids_cbvila import PairIds
from .pair_similarity_cbvila import PairSimilarity, local_rows
from .qformer_losses_cbvila import query_similarities


def query_pair_similarity(
    ids: PairIds, query_embeds: Tensor, text_embeds: Tensor, scale: Tensor | float
) -> PairSimilarity:
    """Computes the similarity of local images and texts to those of all processes.

    Args:
        ids: Ids of the pairs, and the processes to gather embeddings from.
        query_embeds: (b, Q, E) embeddings of the queries, of unit length.
        text_embeds: (b, E) embeddings of the texts, of unit length.
        scale: 1 / temperature.
    """
    queries, texts = _gather(ids, query_embeds, text_embeds)
    per_image = query_similarities(query_embeds, texts) * scale
    per_text = per_image.T
    if ids.processes is not None:
        per_text = (query_similarities(queries, text_embeds) * scale).T
    return local_rows(per_image, ids.matches(), per_text, ids.first, (queries, texts))


def _gather(ids: PairIds, queries: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
    """Gathers queries (b, Q, E) and texts (b, E) as (B, Q, E) and (B, E) with a single collective."""
    if ids.processes is None:
        return queries, texts
    both = ids.processes.gather(torch.cat([queries.flatten(1), texts], dim=1))
    of_images, of_texts = both.split([queries.shape[1] * queries.shape[2], texts.shape[1]], dim=1)
    return of_images.unflatten(1, queries.shape[1:]), of_texts
