"""Recall of images by captions and of captions by images, for made-up models and data."""

import tracemalloc

import numpy as np
import pytest
import torch
from tiny import pretraining_model, tiny_processor, tiny_rows

from transformers_cbvila.retrieval import measure as retrieval
from transformers_cbvila.retrieval.measure import measure_retrieval
from transformers_cbvila.retrieval.reranking import Candidates, TwoStageRetrieval

QUIET = {"progress": False}


@pytest.mark.parametrize("k", [None, 0])
def test_retrieval_metrics_rerank_k_0_or_none_skips_reranking(k):
    figures = measure_retrieval(pretraining_model(), tiny_processor(), tiny_rows(4), rerank_k=k, **QUIET)
    assert "text_retrieval_r1" in figures and not [name for name in figures if "reranked" in name]


def test_retrieval_metrics_without_itm_skip_reranking():
    model = pretraining_model(itm_weight=0.0)
    figures = measure_retrieval(model, tiny_processor(), tiny_rows(4), **QUIET)
    assert not [name for name in figures if "reranked" in name or "combined" in name]


def test_retrieval_metrics_reranked_recall_follows_matching(monkeypatch):
    """Similarities put every true match second; matching knows better for texts, and worse for images.

    The sum follows matching where similarities of candidates are equal, and similarity where they differ by much.
    """
    rows = tiny_rows(4)
    similarity = 0.5 * torch.eye(4) + torch.eye(4).roll(1, 1)

    def matched(model, images, texts, k, progress, folder, together):
        best, second = torch.arange(4), (torch.arange(4) + 1) % 4
        equal, wrong = torch.zeros(4, 2), torch.tensor([[-9.0, 9.0]]).expand(4, 2)
        by_image = Candidates(torch.stack([best, second], 1), torch.tensor([[2.0, 1.0]]).expand(4, 2), equal)
        by_text = Candidates(torch.stack([second, best], 1), torch.tensor([[2.0, 1.0]]).expand(4, 2), wrong)
        return TwoStageRetrieval(by_image, by_text)

    monkeypatch.setattr(retrieval, "cosine_similarity", lambda images, texts: similarity)
    monkeypatch.setattr(retrieval, "rerank", matched)
    figures = measure_retrieval(pretraining_model(), tiny_processor(), rows, **QUIET)
    assert figures["text_retrieval_r1"] == figures["image_retrieval_r1"] == 0
    assert figures["text_retrieval_r1_reranked"] == 1 and figures["image_retrieval_r1_reranked"] == 0
    assert figures["text_retrieval_r1_combined"] == figures["image_retrieval_r1_combined"] == 1
    assert figures["text_retrieval_r5"] == figures["image_retrieval_r5_reranked"] == 1
    gains = [figures[f"text_retrieval_r1_reranked_gain{end}"] for end in ("", "_low", "_high")]
    assert gains == [1, 1, 1] and figures["image_retrieval_r1_reranked_gain"] == 0
    assert figures["image_retrieval_r1_combined_gain"] == 1 and "image_retrieval_r1_gain" not in figures


def test_gain_is_of_the_same_queries():
    """A gain may be beyond its interval where those of both recalls overlap; captions of an image go together."""
    before = np.arange(200) % 2.0
    after = before.copy()
    after[0:20:2] = 1
    for groups, low in ((None, 0.02), (np.arange(200) // 20, 0)):
        hits = {"r1": retrieval._Hits(after, groups)}
        figures = retrieval._recalls(hits, "_reranked", 0, {"r1": retrieval._Hits(before, groups)})
        assert figures["r1_reranked_gain"] == pytest.approx(0.05) and figures["r1_reranked"] == pytest.approx(0.55)
        assert figures["r1_reranked_gain_low"] == pytest.approx(low, abs=0.01)
        assert figures["r1_reranked_low"] < 0.5 or groups is not None


def test_retrieval_metrics_without_contrast_order_all_by_matching():
    """As many candidates as there are rows: similarity, here of the encoders' first tokens, decides nothing."""
    rows = [{**row, "captions": [f"{row['captions'][0]} {number}"]} for number, row in enumerate(tiny_rows(8))]
    model, processor = pretraining_model(same_width=True, itc_weight=0.0), tiny_processor()
    torch.nn.init.normal_(model.objectives["itm"].head.weight)
    figures = measure_retrieval(model, processor, rows, rerank_k=8, **QUIET)
    texts = processor(text=[row["captions"][0] for row in rows], padding=True, return_tensors="pt")
    images = processor(images=[row["image"] for row in rows], return_tensors="pt")
    with torch.no_grad():
        states = model.cbvila.get_text_features(**texts).last_hidden_state
        visual = model.cbvila.get_image_features(**images).last_hidden_state
        odds = torch.stack([_matching(model, states, texts["attention_mask"], image) for image in visual])
    for way, scores in (("text", odds), ("image", odds.T)):
        ranks = (scores > scores.diagonal().unsqueeze(1)).sum(1)
        for depth in (1, 5):
            found = figures[f"{way}_retrieval_r{depth}_reranked"]
            assert found == pytest.approx((ranks < depth).float().mean().item())
    assert len({figures[f"{way}_retrieval_r5_reranked"] for way in ("text", "image")} - {0.0, 1.0}) > 0, (
        "no trivial case"
    )


def _matching(model, states, mask, image):
    """Log-odds (B,) that texts match one image."""
    fused = model.cbvila.fuse_text_with_image(states, mask, image.expand(len(states), -1, -1)).last_hidden_state
    logits = model.objectives["itm"].head(fused[:, 0])
    return logits[:, 1] - logits[:, 0]


def test_retrieval_metrics_equal_captions_match_each_other():
    rows = [{**row, "captions": ["left half"]} for row in tiny_rows(4)]
    figures = measure_retrieval(pretraining_model(), tiny_processor(), rows, rerank_k=1, **QUIET)
    assert figures["text_retrieval_r1"] == figures["image_retrieval_r1_reranked"] == 1


@pytest.mark.parametrize("rerank_k, has_states", [(0, False), (2, True)])
def test_retrieval_metrics_keep_states_for_reranking_only(monkeypatch, rerank_k, has_states):
    kept = []
    encode = retrieval.encode_both

    def watched(*args, **kwargs):
        galleries = encode(*args, **kwargs)
        kept.extend(len(gallery.states) > 0 for gallery in galleries)
        return galleries

    monkeypatch.setattr(retrieval, "encode_both", watched)
    measure_retrieval(pretraining_model(), tiny_processor(), tiny_rows(4), rerank_k=rerank_k, **QUIET)
    assert kept == [has_states, has_states]


@pytest.mark.parametrize("own_only", [False, True])
@pytest.mark.parametrize("size", [1, 3, 512])
def test_true_matches_of_a_part_equal_those_of_all(own_only, size):
    draws = np.random.default_rng(0)
    owners = retrieval.caption_image_index([["text"] * count for count in draws.integers(1, 4, 9)])
    texts = [f"text {number}" for number in draws.integers(0, 6, len(owners))]
    true = retrieval.TrueMatches(texts, owners, own_only)
    whole = np.array(
        [
            [
                owner == image or not own_only and any(texts[i] == text for i in np.flatnonzero(owners == image))
                for text, owner in zip(texts, owners, strict=True)
            ]
            for image in range(9)
        ]
    )
    for start in range(0, len(texts), size):
        part = slice(start, start + size)
        if start < 9:
            np.testing.assert_array_equal(true.texts_of(part), whole[part])
        np.testing.assert_array_equal(true.images_of(part), whole.T[part])
    of_images, of_texts = true.counts()
    assert of_images.tolist() == whole.sum(1).tolist() and of_texts.tolist() == whole.sum(0).tolist()


def test_retrieval_metrics_do_not_depend_on_query_chunks(monkeypatch):
    rows = [{**row, "captions": [f"left {number % 5}"]} for number, row in enumerate(tiny_rows(11))]
    expected = measure_retrieval(pretraining_model(), tiny_processor(), rows, rerank_k=3, **QUIET)
    sizes, compare = [], retrieval.cosine_similarity
    monkeypatch.setattr(retrieval, "_QUERIES", 4)
    monkeypatch.setattr(
        retrieval, "cosine_similarity", lambda *sides: sizes.append(compare(*sides).numel()) or compare(*sides)
    )
    assert measure_retrieval(pretraining_model(), tiny_processor(), rows, rerank_k=3, **QUIET) == pytest.approx(
        expected
    )
    assert max(sizes) == 4 * 11, "never all images with all texts"


def test_true_matches_memory_ignores_one_long_caption():
    texts = [f"text {i // 2}" for i in range(2000)] + ["x" * 100_000]
    tracemalloc.start()
    true = retrieval.true_matches(texts, np.arange(2001), own_only=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert true.sum() == 2 * 2000 + 1 and peak < 100e6
