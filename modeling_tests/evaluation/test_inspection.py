"""The figures of `cbvila inspect` against what they must be for models and data made up for it."""

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import CODES, PATCHES, pretraining_model, tiny_processor, tiny_rows

from transformers_cbvila.evaluation import inspection
from transformers_cbvila.evaluation.inspection import inspect_pretraining
from transformers_cbvila.evaluation.visual_words import collect_visual_words
from transformers_cbvila.metrics.intervals import bootstrap_interval
from transformers_cbvila.metrics.retrieval_metrics import first_relevant_ranks
from transformers_cbvila.retrieval import retrieval_figures as retrieval
from transformers_cbvila.retrieval.reranking import Candidates, TwoStageRetrieval
from transformers_cbvila.retrieval.retrieval_figures import retrieval_figures

QUIET = {"progress": False}


def test_figures_say_on_how_many_patches_and_have_intervals():
    figures = inspect_pretraining(pretraining_model(), tiny_processor(), tiny_rows(8), rerank_k=3, **QUIET)
    assert figures["codebook_window_tokens"] == 8 * PATCHES
    assert figures["ln_perplexity"] == pytest.approx(np.log(figures["codebook_perplexity"]))
    assert 1 / CODES <= figures["codebook_usage"] <= 1
    recalls = [name for name in figures if name.endswith(("_r1", "_r5", "_r10", "_reranked", "_combined"))]
    assert len(recalls) == 18
    for name in recalls:
        assert 0 <= figures[f"{name}_low"] <= figures[name] <= figures[f"{name}_high"] <= 1


def test_a_row_without_a_caption_is_named():
    rows = tiny_rows(4)
    rows[2] = {**rows[2], "captions": []}
    with pytest.raises(ValueError, match="Row 2: it has no caption.*skip_bad_rows"):
        inspect_pretraining(pretraining_model(), tiny_processor(), rows, **QUIET)


@pytest.mark.parametrize(("weight", "left_out"), [("mim_weight", "mim"), ("pixel_weight", "pixel")])
def test_an_objective_that_was_not_trained_has_no_figures(weight, left_out):
    everything = inspect_pretraining(pretraining_model(), tiny_processor(), tiny_rows(4), rerank_k=0, **QUIET)
    figures = inspect_pretraining(
        pretraining_model(**{weight: 0.0}), tiny_processor(), tiny_rows(4), rerank_k=0, **QUIET
    )
    expected = {name for name in everything if name != left_out and not name.startswith(f"{left_out}_")}
    assert set(figures) == expected < set(everything)


@pytest.mark.parametrize("k", [None, 0])
def test_reranking_can_be_left_out(k):
    figures = retrieval_figures(pretraining_model(), tiny_processor(), tiny_rows(4), rerank_k=k, **QUIET)
    assert "text_retrieval_r1" in figures and not [name for name in figures if "reranked" in name]


def test_nothing_is_reranked_by_a_head_that_was_never_trained():
    model = pretraining_model(itm_weight=0.0)
    figures = retrieval_figures(model, tiny_processor(), tiny_rows(4), **QUIET)
    assert not [name for name in figures if "reranked" in name or "combined" in name]


def test_reranked_recall_is_that_of_matching(monkeypatch):
    """Similarities put every true match second; matching knows better for texts, and worse for images.

    The sum follows matching where similarities of candidates are equal, and similarity where they differ by much.
    """
    rows = tiny_rows(4)
    similarity = 0.5 * torch.eye(4) + torch.eye(4).roll(1, 1)

    def matched(model, images, texts, k, progress, folder):
        best, second = torch.arange(4), (torch.arange(4) + 1) % 4
        equal, wrong = torch.zeros(4, 2), torch.tensor([[-9.0, 9.0]]).expand(4, 2)
        by_image = Candidates(torch.stack([best, second], 1), torch.tensor([[2.0, 1.0]]).expand(4, 2), equal)
        by_text = Candidates(torch.stack([second, best], 1), torch.tensor([[2.0, 1.0]]).expand(4, 2), wrong)
        return TwoStageRetrieval(by_image, by_text)

    monkeypatch.setattr(retrieval, "cosine_similarity", lambda images, texts: similarity)
    monkeypatch.setattr(retrieval, "rerank", matched)
    figures = retrieval_figures(pretraining_model(), tiny_processor(), rows, **QUIET)
    assert figures["text_retrieval_r1"] == figures["image_retrieval_r1"] == 0
    assert figures["text_retrieval_r1_reranked"] == 1 and figures["image_retrieval_r1_reranked"] == 0
    assert figures["text_retrieval_r1_combined"] == figures["image_retrieval_r1_combined"] == 1
    assert figures["text_retrieval_r5"] == figures["image_retrieval_r5_reranked"] == 1


def test_rows_with_one_caption_are_matches_of_each_other():
    rows = [{**row, "captions": ["left half"]} for row in tiny_rows(4)]
    figures = retrieval_figures(pretraining_model(), tiny_processor(), rows, rerank_k=1, **QUIET)
    assert figures["text_retrieval_r1"] == figures["image_retrieval_r1_reranked"] == 1


def test_models_without_contrastive_head():
    rows, processor = tiny_rows(4), tiny_processor()
    same = pretraining_model(itc_weight=0.0, same_width=True)
    assert "text_retrieval_r1_reranked" in retrieval_figures(same, processor, rows, **QUIET)
    with pytest.warns(UserWarning, match="ITC.*32 and 24 differ"):
        figures = inspect_pretraining(pretraining_model(itc_weight=0.0), processor, rows, **QUIET)
    assert "mim" in figures and not [name for name in figures if "retrieval" in name]


def test_ranks_count_what_stands_before_the_best_relevant_item():
    similarity = np.array([[0.9, 0.5, 0.5, 0.1], [0.2, 0.2, 0.2, 0.2]])
    relevant = np.array([[False, True, False, True], [True, False, False, False]])
    assert first_relevant_ranks(similarity, relevant).tolist() == [2, 3]


def test_bootstrap_interval_of_a_proportion():
    hits = np.repeat([1.0, 0.0], [100, 300])
    low, high = bootstrap_interval(hits, seed=0)
    spread = 1.96 * np.sqrt(0.25 * 0.75 / 400)  # the normal approximation
    assert low == pytest.approx(0.25 - spread, abs=0.008) and high == pytest.approx(0.25 + spread, abs=0.008)
    assert bootstrap_interval(np.ones(9), seed=0) == (1.0, 1.0)


def spied(monkeypatch):
    """What the inspections collect, in the order in which they start."""
    collected = []
    found = inspection._Found
    monkeypatch.setattr(inspection, "_Found", lambda codes: collected.append(found(codes)) or collected[-1])
    return collected


def test_figures_of_words_and_pixels_are_those_of_all_of_them_at_once():
    model, processor, rows = pretraining_model(), tiny_processor(), tiny_rows(11)
    figures = inspect_pretraining(model, processor, rows, batch_size=4, rerank_k=0, **QUIET)
    pixels = processor(images=[row["image"] for row in rows], return_tensors="pt")["pixel_values"]
    words = model.cbvila(pixels).codebook_indices
    counts = torch.bincount(words.flatten(), minlength=CODES).double()
    assert figures["codebook_top_share"] == pytest.approx(float(counts.max() / counts.sum()))
    places = torch.nn.functional.one_hot(words, CODES).float().mean(0)
    assert figures["mim_accuracy_position_floor"] == pytest.approx(float(places.amax(-1).mean()))
    channels = pixels.double().transpose(0, 1).flatten(1)
    assert figures["pixel_floor"] == pytest.approx(float(channels.var(dim=1, correction=0).mean()))


def test_what_inspection_holds_does_not_grow_with_the_pictures(monkeypatch):
    collected = spied(monkeypatch)
    for rows in (4, 16):
        inspect_pretraining(pretraining_model(), tiny_processor(), tiny_rows(rows), batch_size=4, rerank_k=0, **QUIET)
    few, many = collected
    assert few.words.shape == many.words.shape and few.colours.shape == many.colours.shape
    per_image = [sum(part.numel() for parts in found.per_image.values() for part in parts) for found in collected]
    assert per_image == [5 * 4, 5 * 16]  # numbers, not pixels: bootstrap intervals are made of them
    assert not [part for parts in many.per_image.values() for part in parts if part.untyped_storage().nbytes() > 64]


@pytest.mark.parametrize("rerank_k, has_states", [(0, False), (2, True)])
def test_states_are_kept_only_to_match(monkeypatch, rerank_k, has_states):
    kept = []
    encode = retrieval.encode_both

    def watched(*args, **kwargs):
        galleries = encode(*args, **kwargs)
        kept.extend(len(gallery.states) > 0 for gallery in galleries)
        return galleries

    monkeypatch.setattr(retrieval, "encode_both", watched)
    retrieval_figures(pretraining_model(), tiny_processor(), tiny_rows(4), rerank_k=rerank_k, **QUIET)
    assert kept == [has_states, has_states]


def test_rows_are_read_in_their_order_whatever_they_are_in():
    rows = tiny_rows(6)
    backwards = pd.Series(rows, index=range(6)[::-1])
    model, processor = pretraining_model(), tiny_processor()
    expected = inspect_pretraining(model, processor, rows, rerank_k=0, **QUIET)
    assert inspect_pretraining(model, processor, backwards, rerank_k=0, **QUIET) == expected
    assert inspect_pretraining(model, processor, iter(rows), rerank_k=0, **QUIET) == expected
    words = collect_visual_words(model, processor, rows, progress=False).indices
    np.testing.assert_array_equal(collect_visual_words(model, processor, backwards, progress=False).indices, words)
    for call in (inspect_pretraining, retrieval_figures, collect_visual_words):
        with pytest.raises(ValueError, match="rows is a table"):
            call(model, processor, pd.DataFrame(rows), progress=False)


@pytest.mark.parametrize("own_only", [False, True])
@pytest.mark.parametrize("size", [1, 3, 512])
def test_what_is_true_of_some_is_a_part_of_what_is_true_of_all(own_only, size):
    draws = np.random.default_rng(0)
    owners = retrieval.owners_of([["text"] * count for count in draws.integers(1, 4, 9)])
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


def test_figures_are_the_same_for_few_queries_at_a_time(monkeypatch):
    rows = [{**row, "captions": [f"left {number % 5}"]} for number, row in enumerate(tiny_rows(11))]
    expected = retrieval_figures(pretraining_model(), tiny_processor(), rows, rerank_k=3, **QUIET)
    sizes, compare = [], retrieval.cosine_similarity
    monkeypatch.setattr(retrieval, "_QUERIES", 4)
    monkeypatch.setattr(
        retrieval, "cosine_similarity", lambda *sides: sizes.append(compare(*sides).numel()) or compare(*sides)
    )
    assert retrieval_figures(pretraining_model(), tiny_processor(), rows, rerank_k=3, **QUIET) == pytest.approx(
        expected
    )
    assert max(sizes) == 4 * 11, "never all images with all texts"
