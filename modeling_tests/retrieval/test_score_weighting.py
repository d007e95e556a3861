"""The weight of similarity beside matching, and that a query has no part in the weight that it is measured with."""

import pytest
import torch

from transformers_cbvila.data.masking import generator_for
from transformers_cbvila.retrieval.score_weighting import (
    WEIGHTS,
    JudgedCandidates,
    cross_fitted_weights,
    fitted_similarity_weight,
    reciprocal_ranks,
)


def judged(scores, similarities, relevant):
    return JudgedCandidates(torch.tensor(scores), torch.tensor(similarities), torch.tensor(relevant).bool())


def noisy(queries, noise_of_scores, noise_of_similarities, seed=0):
    """Candidates whose first one is relevant: both scores are 1 for it and 0 for others, and noisy."""
    generator = generator_for(seed)
    relevant = torch.zeros(queries, 8, dtype=torch.bool)
    relevant[:, 0] = True
    draws = torch.randn(2, queries, 8, generator=generator)
    noises = torch.tensor([noise_of_scores, noise_of_similarities]).view(2, 1, 1)
    return JudgedCandidates(*(relevant.float() + noises * draws), relevant)


def test_reciprocal_ranks_by_hand():
    candidates = judged(
        [[3.0, 2.0, 1.0], [0.0, 0.0, 0.0], [1.0, 2.0, 3.0]],
        [[0.0, 2.0, 9.0], [0.0, 1.0, 2.0], [0.0, 0.0, 0.0]],
        [[0, 1, 0], [0, 1, 0], [0, 0, 0]],
    )
    assert reciprocal_ranks(candidates, 0.0).tolist() == [1 / 2, 1 / 3, 0]  # equal scores: the relevant one is last
    assert reciprocal_ranks(candidates, 1.0).tolist() == [1 / 2, 1 / 2, 0]
    assert reciprocal_ranks(candidates, 0.125).tolist() == [1 / 2, 1 / 2, 0]


@pytest.mark.parametrize("chosen, noises", [(0.0, (0.1, 50.0)), (WEIGHTS[-1], (50.0, 0.1))])
def test_fitted_similarity_weight_leaves_noise_out(chosen, noises):
    assert fitted_similarity_weight([noisy(300, *noises)]) == chosen


def test_fitted_similarity_weight_is_that_of_the_variances():
    """Of two independent normal scores of equal signal the best weights are as 1 / variance: 4 here."""
    assert 2 <= fitted_similarity_weight([noisy(20_000, 1.0, 0.5)]) <= 8


def test_cross_fitted_weights_are_fitted_on_the_other_half():
    even, odd = noisy(200, 0.1, 50.0), noisy(200, 50.0, 0.1, seed=1)
    both = JudgedCandidates(*(torch.stack(pair, 1).flatten(0, 1) for pair in zip(even, odd, strict=True)))
    (weights,) = cross_fitted_weights([both])
    assert weights.shape == (400, 1)
    assert (weights[::2] == WEIGHTS[-1]).all() and (weights[1::2] == 0).all()


def test_cross_fitted_weights_of_one_query_are_there():
    (weights,) = cross_fitted_weights([noisy(1, 1.0, 1.0)])
    assert weights.shape == (1, 1) and weights.item() in WEIGHTS
