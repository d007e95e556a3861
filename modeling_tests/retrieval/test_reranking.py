"""Two-stage retrieval against a pass per pair, and by hand."""

import numpy as np
import pytest
import torch
from tiny import SIDE, build, tiny_config, tiny_processor, tiny_rows, tiny_texts
from torch.testing import assert_close

from transformers_cbvila.model.modeling_cbvila_image_text_retrieval import CBViLAForImageTextRetrieval
from transformers_cbvila.model.modeling_cbvila_pretraining import CBViLAForPreTraining
from transformers_cbvila.retrieval import reranking
from transformers_cbvila.retrieval.encoding import GalleryEncoder
from transformers_cbvila.retrieval.gallery import Encoded, cosine_similarity
from transformers_cbvila.retrieval.pair_matching import match_pairs
from transformers_cbvila.retrieval.reranking import (
    Candidates,
    rerank,
    reranked_scores,
    retrieve_in_two_stages,
)
from transformers_cbvila.retrieval.similarity import most_similar

IMAGES = [row["image"] for row in tiny_rows(5)]
TEXTS = ["left half red", "right", "a red half is left", "top half blue ?", "green", "it is bottom"]
QUIET = {"progress": False}


def encoded(model):
    processor = tiny_processor()
    images = GalleryEncoder(model, processor, "images", batch_size=2, **QUIET).encode(IMAGES)
    return images, GalleryEncoder(model, processor, "texts", batch_size=4, **QUIET).encode(TEXTS)


@torch.no_grad()
def naive_logits(model):
    """(M, T) log-odds of matching, one pass through the whole model per pair."""
    processor, logits = tiny_processor(), torch.empty(len(IMAGES), len(TEXTS))
    for i, image in enumerate(IMAGES):
        for t, text in enumerate(TEXTS):
            inputs = processor(images=[image], text=[text], return_tensors="pt")
            fused = model.cbvila.encode_pairs(**inputs)
            wrong, right = model.objectives["itm"].head(fused.last_hidden_state[:, 0])[0]
            logits[i, t] = right - wrong
    return logits


@pytest.mark.parametrize("itm_kv", ["continuous", "quantized", "both"])
@pytest.mark.parametrize("model_class", [CBViLAForImageTextRetrieval, CBViLAForPreTraining])
def test_match_pairs_equals_a_pass_per_pair(model_class, itm_kv):
    model = build(model_class, itm_kv=itm_kv)
    pairs = torch.cartesian_prod(torch.arange(len(IMAGES)), torch.arange(len(TEXTS)))
    pairs = pairs[torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))]
    logits = match_pairs(model, *encoded(model), pairs, images_per_chunk=2, pairs_per_batch=5, progress=False)
    naive = naive_logits(model)
    assert_close(logits, naive[pairs[:, 0], pairs[:, 1]], atol=1e-5, rtol=0)
    assert naive.std() > 1e-3  # or the comparison would say nothing


def test_match_pairs_of_one_pair_and_of_none():
    model = build(CBViLAForImageTextRetrieval)
    images, texts = encoded(model)
    one = match_pairs(model, images, texts, torch.tensor([[3, 1]]), progress=False)
    assert_close(one, naive_logits(model)[3, 1:2], atol=1e-5, rtol=0)
    assert match_pairs(model, images, texts, torch.empty(0, 2, dtype=torch.long)).shape == (0,)


def test_match_pairs_projects_keys_once_per_image_and_layer():
    model, projected, last, itself = build(CBViLAForImageTextRetrieval), [], [], []
    images, texts = encoded(model)
    layers = model.cbvila.fusion_model.layers
    for layer in layers:
        layer.crossattention.k_proj.register_forward_hook(lambda _, args, out: projected.append(len(args[0])))
    layers[0].attention.register_forward_hook(lambda *_: itself.append(1))
    layers[0].attention.q_proj.register_forward_hook(lambda *_: itself.append(1))
    layers[-1].mlp.register_forward_hook(lambda _, args, out: last.append(tuple(args[0].shape)))
    pairs = torch.cartesian_prod(torch.arange(len(IMAGES)), torch.arange(len(TEXTS)))
    match_pairs(model, images, texts, pairs, images_per_chunk=2, pairs_per_batch=3, progress=False)
    assert sum(projected) == len(IMAGES) * len(layers) and max(projected) == 2
    assert last == [(1, 3, 24)] * (4 + 4 + 2)  # batches of 3 for 12, 12 and 6 pairs
    assert itself == []  # what a text asks first was computed with the text


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_fusion_first_token_only_equals_the_full_pass(attention):
    model = build(CBViLAForImageTextRetrieval)
    model.set_attn_implementation(attention)
    fusion, texts = model.cbvila.fusion_model, tiny_texts()
    states = torch.randn(4, 7, 24, generator=torch.Generator().manual_seed(1))
    keys = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(2))
    keys_mask = torch.tensor([[1] * 9, [1] * 5 + [0] * 4])
    options = {"encoder_attention_mask": keys_mask, "encoder_index": torch.tensor([1, 0, 1, 1])}
    full = fusion(states, texts["attention_mask"], encoder_hidden_states=keys, **options).last_hidden_state
    for count in (1, 3):
        part = fusion(
            states,
            texts["attention_mask"],
            encoder_keys_values=fusion.keys_values(keys),
            num_queries=count,
            **options,
        ).last_hidden_state
        assert part.shape == (4, count, 24)
        assert_close(part, full[:, :count], atol=1e-5, rtol=0)


def test_fusion_model_takes_states_or_keys_and_values():
    fusion = build(CBViLAForImageTextRetrieval).cbvila.fusion_model
    states, keys = torch.randn(1, 3, 24), torch.randn(1, 9, 32)
    with pytest.raises(ValueError, match="one of the two"):
        fusion(states)
    with pytest.raises(ValueError, match="one of the two"):
        fusion(states, encoder_hidden_states=keys, encoder_keys_values=fusion.keys_values(keys))


def test_gallery_encoder_equals_the_model_without_padding():
    model, processor = build(CBViLAForImageTextRetrieval), tiny_processor()
    images, texts = encoded(model)
    assert [len(states) for states in texts.states] == [5, 3, 7, 6, 3, 5]  # words, [CLS] and [SEP]
    output = model(**processor(images=IMAGES, text=TEXTS[:5], return_tensors="pt"))
    assert_close(images.embeds, output.image_embeds, atol=1e-6, rtol=0)
    assert_close(texts.embeds[:5], output.text_embeds, atol=1e-6, rtol=0)
    assert images.states[0].shape == (1 + (SIDE // 8) ** 2, 32)


def test_retrieve_in_two_stages_keeps_training_mode_without_dropout():
    model = build(CBViLAForImageTextRetrieval, tiny_config(dropout=0.3))
    calm = retrieve_in_two_stages(model, tiny_processor(), IMAGES, TEXTS, k=2, **QUIET)
    model.train()
    again = retrieve_in_two_stages(model, tiny_processor(), iter(IMAGES), iter(TEXTS), k=2, **QUIET)
    assert model.training and model.cbvila.fusion_model.layers[0].dropout.training
    assert_close(again.texts_of_images.scores, calm.texts_of_images.scores, atol=1e-6, rtol=0)


@pytest.mark.parametrize("model_class", [CBViLAForImageTextRetrieval, CBViLAForPreTraining])
def test_retrieve_in_two_stages_orders_both_directions(model_class):
    model, k = build(model_class), 3
    found, naive = retrieve_in_two_stages(model, tiny_processor(), IMAGES, TEXTS, k=k, **QUIET), naive_logits(model)
    similarity = cosine_similarity(*encoded(model))
    for scores, logits, candidates in (
        (similarity, naive, found.texts_of_images),
        (similarity.T, naive.T, found.images_of_texts),
    ):
        assert candidates.rows.shape == (len(scores), k)
        for query in range(len(scores)):
            most_similar = sorted(range(scores.shape[1]), key=lambda item: -scores[query, item])[:k]
            expected = sorted(most_similar, key=lambda item: -logits[query, item])
            assert candidates.rows[query].tolist() == expected
            assert_close(candidates.scores[query], logits[query, expected], atol=1e-5, rtol=0)


def test_rerank_matches_shared_candidates_once(monkeypatch):
    matched = []

    def record(model, images, texts, pairs, **options):
        matched.append(pairs)
        return pairs.sum(1).float()

    monkeypatch.setattr(reranking, "match_pairs", record)
    embeds = torch.eye(3)
    found = rerank(None, Encoded(embeds, []), Encoded(embeds[[0, 2, 1]], []), k=1)
    assert matched[0].tolist() == [[0, 0], [1, 2], [2, 1]]
    assert found.images_of_texts.rows.tolist() == [[0], [2], [1]] and found.images_of_texts.scores[1] == 3


def test_most_similar_by_hand():
    gallery = torch.tensor([[0.1, 0.0], [0.9, 0.0], [0.5, 0.0], [0.9, 0.0]])
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    cosines, rows = most_similar([queries], [gallery], 3)
    assert rows.tolist() == [[1, 3, 2], [0, 1, 2]]
    assert_close(cosines, torch.tensor([[0.9, 0.9, 0.5], [0.0, 0.0, 0.0]]))
    assert most_similar([queries], [gallery], 9)[1].shape == (2, 4)
    with pytest.raises(ValueError, match="k=0 candidates"):
        most_similar([queries], [gallery], 0)


@pytest.mark.parametrize("k", [1, 4, 23])
@pytest.mark.parametrize("chunk", [1, 3, 50])
def test_most_similar_in_chunks_equals_all_similarities(k, chunk):
    draws = torch.Generator().manual_seed(k)
    # small integers: products are exact, and many are equal
    queries, gallery = (torch.randint(-1, 2, (count, 3), generator=draws).float() for count in (9, 23))
    cosines, rows = most_similar(queries.split(4), gallery.split(7), k, chunk)
    expected = (queries @ gallery.T).sort(dim=1, descending=True, stable=True)
    assert rows.tolist() == expected.indices[:, :k].tolist()
    assert cosines.tolist() == expected.values[:, :k].tolist()


def test_reranked_scores_put_candidates_first():
    similarity = torch.tensor([[0.9, 0.8, 0.1, 0.8], [0.3, 0.2, 0.2, 0.1]])
    # the first query's candidates match worse than its others are similar
    candidates = Candidates(
        torch.tensor([[1, 0], [2, 0]]), torch.tensor([[-7.0, -8.0], [5.0, 5.0]]), torch.zeros(2, 2)
    )
    scores = reranked_scores(similarity, candidates)
    assert np.argsort(-scores[0], kind="stable").tolist() == [1, 0, 3, 2]
    assert scores[0, :2].tolist() == [-8.0, -7.0]
    assert scores[1, 0] == scores[1, 2] == 5.0 and scores[1, 1] > scores[1, 3]
    one = Candidates(torch.tensor([[0]]), torch.tensor([[1.0]]), torch.tensor([[0.5]]))
    equal = reranked_scores(torch.tensor([[0.5, 0.2, 0.2]]), one)
    assert equal[0, 1] == equal[0, 2] < 1.0


def test_candidates_with_similarity_add_both_scores():
    by_matching = Candidates(
        torch.tensor([[4, 7, 2]]), torch.tensor([[3.0, 2.0, -1.0]]), torch.tensor([[0.1, 0.4, 0.6]])
    )
    both = by_matching.with_similarity(10.0)
    assert both.rows.tolist() == [[7, 2, 4]]
    assert_close(both.scores, torch.tensor([[6.0, 5.0, 4.0]]))
    assert_close(both.cosines, torch.tensor([[0.4, 0.6, 0.1]]))
    assert by_matching.with_similarity(0.0).rows.tolist() == [[4, 7, 2]]


def test_candidates_with_similarity_restores_complementary_scores():
    # Mismatches drawn in proportion to exp(similarity): what ITM learns at best are the truth's log-odds less that.
    draws = torch.Generator().manual_seed(0)
    truth, cosines = torch.randn(5, 9, generator=draws), torch.rand(5, 9, generator=draws)
    rows = torch.arange(9).expand(5, -1)
    learned = Candidates(rows, truth - 20 * cosines, cosines)
    assert learned.with_similarity(20.0).rows.tolist() == truth.sort(dim=1, descending=True).indices.tolist()


def test_gallery_encoder_rejects_no_items():
    model = build(CBViLAForImageTextRetrieval)
    with pytest.raises(ValueError, match="Encoding texts: there are none"):
        GalleryEncoder(model, tiny_processor(), "texts", **QUIET).encode([])


def test_cosine_similarity_rejects_other_widths_without_projections():
    model = build(CBViLAForImageTextRetrieval, itc_weight=0.0)
    with pytest.raises(ValueError, match="images are 32 wide and those of texts 24.*ITC"):
        cosine_similarity(*encoded(model))
    assert cosine_similarity(*encoded(build(CBViLAForImageTextRetrieval, itc_weight=0.0, same_width=True))).shape == (
        len(IMAGES),
        len(TEXTS),
    )
