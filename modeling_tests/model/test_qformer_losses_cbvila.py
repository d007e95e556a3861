"""The losses of a Q-Former's first stage, against values computed by hand in fp64."""

import math

import pytest
import torch
import torch.nn.functional as F

from transformers_cbvila.model.losses_cbvila import classification_loss
from transformers_cbvila.model.pair_ids_cbvila import PairIds
from transformers_cbvila.model.qformer_losses_cbvila import (
    caption_labels,
    caption_loss,
    query_matching_logits,
    query_similarities,
    smoothed_itc_loss,
)
from transformers_cbvila.model.qformer_pairs_cbvila import query_pair_similarity

QUERIES = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.6, 0.8], [0.0, -1.0]]], dtype=torch.float64)
TEXTS = F.normalize(torch.tensor([[3.0, 4.0], [1.0, 0.0]], dtype=torch.float64), dim=-1)
DISTINCT = torch.eye(2, dtype=torch.bool)


def close(value, expected):
    torch.testing.assert_close(value, torch.tensor(expected, dtype=value.dtype), atol=1e-6, rtol=0)


def test_similarity_is_that_of_the_best_query():
    close(query_similarities(QUERIES, TEXTS), [[0.8, 1.0], [1.0, 0.6]])


def test_itc_loss_with_smoothing_by_hand():
    scaled = query_similarities(QUERIES, TEXTS) / 0.5
    close(smoothed_itc_loss(scaled, DISTINCT, scaled.T, DISTINCT), 1.012058)
    for rows in (scaled, scaled.T):  # each direction by itself
        close(smoothed_itc_loss(rows, DISTINCT, rows, DISTINCT), 1.012058)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_itc_loss_equals_torch_where_all_pairs_differ(smoothing):
    scores = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    own, targets = torch.eye(5, dtype=torch.bool), torch.arange(5)
    expected = (
        F.cross_entropy(scores, targets, label_smoothing=smoothing)
        + F.cross_entropy(scores.T, targets, label_smoothing=smoothing)
    ) / 2
    torch.testing.assert_close(smoothed_itc_loss(scores, own, scores.T, own, smoothing=smoothing), expected)


def test_itc_loss_leaves_known_matches_out():
    """Of three columns the third matches the first row's image as well: row 1 has two classes, as has row 3."""
    scores = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    matches = torch.eye(3, dtype=torch.bool)
    matches[0, 2] = matches[2, 0] = True
    loss = smoothed_itc_loss(scores, matches, scores, matches)
    first = F.cross_entropy(scores[:1, :2], torch.tensor([0]), label_smoothing=0.1)
    second = F.cross_entropy(scores[1:2], torch.tensor([1]), label_smoothing=0.1)
    third = F.cross_entropy(scores[2:, 1:], torch.tensor([1]), label_smoothing=0.1)
    torch.testing.assert_close(loss, (first + second + third) / 3)
    loss.backward()
    assert scores.grad.isfinite().all() and scores.grad[0, 2] == scores.grad[2, 0] == 0


def test_itc_loss_of_a_single_pair_is_zero_with_a_gradient():
    score, own = torch.tensor([[0.3]], requires_grad=True), torch.ones(1, 1, dtype=torch.bool)
    loss = smoothed_itc_loss(score, own, score, own)
    loss.backward()
    assert loss == 0 and score.grad == 0


def test_pair_similarity_has_the_best_query_in_both_directions():
    ids = PairIds(torch.tensor([1, 2]), torch.tensor([3, 4]))
    pairs = query_pair_similarity(ids, QUERIES, TEXTS, 2.0)
    close(pairs.per_image, [[1.6, 2.0], [2.0, 1.2]])
    assert torch.equal(pairs.per_text, pairs.per_image.T) and torch.equal(pairs.matches, DISTINCT)
    images, texts = pairs.negatives(None, None)
    assert images.tolist() == texts.tolist() == [[1], [0]]


def test_matching_logits_are_means_over_queries():
    logits = torch.tensor([[[1.0, 0.0], [0.0, 3.0]]], dtype=torch.float64)
    close(query_matching_logits(logits), [[0.5, 1.5]])
    close(classification_loss(query_matching_logits(logits), torch.tensor([1])), math.log(1 + math.exp(-1)))


def test_caption_labels_are_the_next_tokens():
    ids, mask = torch.tensor([[2, 7, 8, 3], [2, 9, 3, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    assert caption_labels(ids, mask).tolist() == [[7, 8, 3], [9, 3, -100]]
    assert caption_labels(ids, None).tolist() == [[7, 8, 3], [9, 3, 0]]


def test_caption_loss_by_hand():
    """Three labelled tokens of probability .5, .25 and .125: 2 ln 2; what the last position predicts is not scored."""
    shares = torch.full((1, 5, 3), 1 / 3, dtype=torch.float64)
    for place, share in enumerate((0.5, 0.25, 0.125)):
        shares[0, place] = (1 - share) / 2
        shares[0, place, 1] = share
    loss = caption_loss(shares.log(), torch.tensor([[1, 1, 1, -100]]))
    close(loss, 2 * math.log(2))


def test_caption_loss_without_labels_is_zero():
    logits = torch.randn(1, 2, 3, requires_grad=True)
    loss = caption_loss(logits, torch.tensor([[-100]]))
    loss.backward()
    assert loss == 0 and not logits.grad.any()
