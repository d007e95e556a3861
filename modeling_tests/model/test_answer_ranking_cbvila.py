"""Options of rank_answers that reproduce ALBEF's evaluation."""

import pytest
import tiny
import torch

LISTED = torch.tensor(
    [[7, tiny.SEP, -100], [7, 9, tiny.SEP], [8, tiny.SEP, -100], [11, 6, tiny.SEP], [30, tiny.SEP, -100]]
)


@pytest.fixture(scope="module")
def model():
    return tiny.answering_model()


@pytest.fixture(scope="module")
def question():
    return {"pixel_values": tiny.tiny_images(3), **tiny.tiny_texts(3)}


@torch.no_grad()
def first_token_log_probs(model, question):
    """(B, V) of the token after [CLS], one question at a time."""
    labels = torch.full((3, 1), tiny.SEP)
    return model(**question, labels=labels).logits[:, 0].log_softmax(-1)


def test_rank_answers_top_k_scores_likeliest_first_tokens(model, question):
    plain = model.rank_answers(**question, answer_labels=LISTED)
    first = first_token_log_probs(model, question)[:, LISTED[:, 0]]
    for k in (1, 3, 5):
        ranking = model.rank_answers(**question, answer_labels=LISTED, top_k=k, chunk_size=2)
        for row in range(3):
            scored = ranking.log_likelihoods[row].isfinite()
            assert scored.sum() == k
            assert first[row, scored].min() >= first[row, ~scored].max(-1).values if k < 5 else scored.all()
            expected = plain.log_likelihoods[row, scored]
            torch.testing.assert_close(ranking.log_likelihoods[row, scored], expected, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(ranking.scores[row, scored], expected.softmax(-1), atol=1e-5, rtol=1e-5)
            assert (ranking.scores[row, ~scored] == 0).all()


def test_rank_answers_compat_first_token_twice(model, question):
    plain = model.rank_answers(**question, answer_labels=LISTED).log_likelihoods
    twice = model.rank_answers(**question, answer_labels=LISTED, compat_first_token_twice=True)
    expected = plain + first_token_log_probs(model, question)[:, LISTED[:, 0]]
    torch.testing.assert_close(twice.log_likelihoods, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(twice.scores, expected.softmax(-1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("k", [0, -1, 6])
def test_rank_answers_rejects_top_k_above_the_candidates(model, question, k):
    with pytest.raises(ValueError, match=rf"top_k={k}: there are 5 candidate\(s\)"):
        model.rank_answers(**question, answer_labels=LISTED, top_k=k)
