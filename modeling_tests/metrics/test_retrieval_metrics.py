"""Ranks and recall at k against hand-computed values."""

import numpy as np
import pytest

from transformers_cbvila.metrics.retrieval_metrics import first_relevant_ranks, recall_at_k

EYE = np.eye(3, dtype=bool)


def test_recall_at_k_of_perfect_and_reversed_rankings():
    assert recall_at_k(np.eye(3), EYE, ks=(1,)) == {1: 1.0}
    assert recall_at_k(-np.eye(3), EYE, ks=(1, 2, 3)) == {1: 0.0, 2: 0.0, 3: 1.0}


def test_recall_at_k_counts_the_best_relevant_item():
    similarity = np.array([[0.9, 0.5, 0.1]])
    assert recall_at_k(similarity, np.array([[False, True, True]]), ks=(1, 2)) == {1: 0.0, 2: 1.0}


def test_first_relevant_ranks_count_items_before():
    similarity = np.array([[0.9, 0.5, 0.5, 0.1], [0.2, 0.2, 0.2, 0.2]])
    relevant = np.array([[False, True, False, True], [True, False, False, False]])
    assert first_relevant_ranks(similarity, relevant).tolist() == [2, 3]


def test_recall_at_k_of_equal_scores_is_0():
    assert recall_at_k(np.zeros((3, 3)), EYE, ks=(1, 2, 3)) == {1: 0.0, 2: 0.0, 3: 1.0}


def test_recall_at_k_names_a_query_without_relevant_items():
    with pytest.raises(ValueError, match="query 1"):
        recall_at_k(np.zeros((2, 2)), np.array([[True, False], [False, False]]))


def test_recall_at_k_rejects_shapes_that_differ():
    with pytest.raises(ValueError, match="shape|is"):
        recall_at_k(np.zeros((2, 2)), EYE)


def test_recall_at_k_rejects_nan_scores():
    relevant = np.eye(3, dtype=bool)
    for place in ((1, 1), (1, 2)):  # the relevant item's, and another's
        similarity = np.eye(3)
        similarity[place] = np.nan
        with pytest.raises(ValueError, match="query 1 has scores that are not a number"):
            recall_at_k(similarity, relevant)
    assert recall_at_k(np.where(relevant, 0.0, -np.inf), relevant)[1] == 1.0
