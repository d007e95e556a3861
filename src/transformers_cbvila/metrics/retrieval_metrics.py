"""Recall at k of image-text retrieval, as a pure function."""

from collections.abc import Sequence

import numpy as np


def recall_at_k(similarity: np.ndarray, relevant: np.ndarray, ks: Sequence[int] = (1, 5, 10)) -> dict[int, float]:
    """Returns the share of queries with at least one relevant item among the k most similar.

    Args:
        similarity: (Q, G) scores of gallery items (columns) for queries (rows). Among equal scores the relevant item
            counts as the last one, so that constant scores gain nothing.
        relevant: (Q, G) bool; every query needs at least one relevant item.
        ks: Depths.

    Returns:
        Recall, 0 to 1, for each depth.

    Raises:
        ValueError: If the shapes differ, a query has no relevant item, or a score is NaN.
    """
    ranks = first_relevant_ranks(similarity, relevant)
    return {k: float((ranks < k).mean()) for k in ks}


def first_relevant_ranks(similarity: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Returns for each query (Q,) how many items rank before the best relevant one.

    Arguments and errors are those of [`recall_at_k`].
    """
    if similarity.shape != relevant.shape:
        raise ValueError(f"similarity is {similarity.shape} but relevant is {relevant.shape}")
    if not relevant.any(axis=1).all():
        raise ValueError(f"query {int((~relevant.any(axis=1)).argmax())} has no relevant item in the gallery")
    if np.isnan(similarity).any():  # comparisons with NaN are false, so that every query would find its item first
        raise ValueError(
            f"query {int(np.isnan(similarity).any(axis=1).argmax())} has scores that are not a number (NaN): what "
            "scored it is broken"
        )
    best = np.where(relevant, similarity, -np.inf).max(axis=1, keepdims=True)
    # irrelevant items that are at least as similar rank before it
    return ((similarity >= best) & ~relevant).sum(axis=1)
