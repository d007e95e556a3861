"""Ranks and recall at k against values worked out by hand."""

import numpy as np
import pytest

from transformers_cbvila.metrics.retrieval_metrics import first_relevant_ranks, recall_at_k

EYE = np.eye(3, dtype=bool)


def test_perfect_and_reversed_rankings():
    assert recall_at_k(np.eye(3), EYE, ks=(1,)) == {1: 1.0}
    assert recall_at_k(-np.eye(3), EYE, ks=(1, 2, 3)) == {1: 0.0, 2: 0.0, 3: 1.0}


def test_counts_the_best_of_several_relevant_items():
    similarity = np.array([[0.9, 0.5, 0.1]])
    assert recall_at_k(similarity, np.array([[False, True, True]]), ks=(1, 2)) == {1: 0.0, 2: 1.0}


def test_ranks_count_what_stands_before_the_best_relevant_item():
    similarity = np.array([[0.9, 0.5, 0.5, 0.1], [0.2, 0.2, 0.2, 0.2]])
    relevant = np.array([[False, True, False, True], [True, False, False, False]])
    assert first_relevant_ranks(similarity, relevant).tolist() == [2, 3]


def test_equal_scores_earn_nothing():
    assert recall_at_k(np.zeros((3, 3)), EYE, ks=(1, 2, 3)) == {1: 0.0, 2: 0.0, 3: 1.0}


def test_a_query_with_nothing_to_find_is_named():
    with pytest.raises(ValueError, match="query 1"):
        recall_at_k(np.zeros((2, 2)), np.array([[True, False], [False, False]]))


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="shape|is"):
        recall_at_k(np.zeros((2, 2)), EYE)


def test_what_is_not_a_number_is_no_hit():
    relevant = np.eye(3, dtype=bool)
    for place in ((1, 1), (1, 2)):  # the relevant item's, and another's
        similarity = np.eye(3)
        similarity[place] = np.nan
        with pytest.raises(ValueError, match="query 1 has scores that are not a number"):
            recall_at_k(similarity, relevant)
    assert recall_at_k(np.where(relevant, 0.0, -np.inf), relevant)[1] == 1.0
