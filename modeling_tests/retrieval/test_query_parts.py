"""Queries of several parts: text with image, and what is not wanted."""

import pytest
import torch
import torch.nn.functional as F
from tiny import half_image

from transformers_cbvila import CBViLAForImageTextRetrieval, CBViLARetriever, bundled_checkpoint
from transformers_cbvila.retrieval.query_parts import combined, query_parts

COLOURS = ("red", "blue", "green")


@pytest.fixture(scope="module")
def retriever():
    found = CBViLARetriever.from_pretrained(bundled_checkpoint("cbvila-tiny"), device="cpu")
    return found.index([half_image(colour, "left") for colour in COLOURS], progress=False)


def embeds(retriever, **query):
    found = retriever.search(**query, top_k=len(COLOURS), rerank_k=0)
    return found.similarities[found.indices.argsort()]


def test_combined_is_the_direction_of_the_weighted_sum():
    one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]])
    torch.testing.assert_close(combined([one, other], [1.0, 1.0]), F.normalize(torch.tensor([[1.6, 0.8]]), dim=-1))
    torch.testing.assert_close(combined([one, other], [1.0, -0.5]), F.normalize(torch.tensor([[0.7, -0.4]]), dim=-1))


def test_a_query_of_text_and_image_lies_between_both(retriever):
    image = half_image("blue", "right")
    text, of_image = embeds(retriever, text="a red square"), embeds(retriever, image=image)
    both = embeds(retriever, text="a red square", image=image)
    ratio = (text + of_image) / both  # one length for all items: that of the sum of both embeddings
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), atol=1e-3, rtol=1e-3)
    mostly = embeds(retriever, text="a red square", image=image, weights={"image": 1e6})
    torch.testing.assert_close(mostly, of_image, atol=1e-4, rtol=0)


def test_what_is_not_wanted_comes_later(retriever):
    text, unwanted = embeds(retriever, text="a square"), embeds(retriever, text="a red square")
    found = embeds(retriever, text="a square", negative_text="a red square", weights={"negative_text": 0.25})
    ratio = (text - 0.25 * unwanted) / found
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), atol=1e-3, rtol=1e-3)


def test_an_image_that_is_not_wanted_counts_as_a_text_that_is_not(retriever):
    image = half_image("blue", "left")
    text, unwanted = embeds(retriever, text="a square"), embeds(retriever, image=image)
    found = embeds(retriever, text="a square", negative_image=image, weights={"negative_image": 0.25})
    ratio = (text - 0.25 * unwanted) / found
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), atol=1e-3, rtol=1e-3)
    default, half = (
        embeds(retriever, image=half_image("red", "left"), negative_image=image, weights=weights)
        for weights in (None, {"negative_image": 0.5})
    )
    torch.testing.assert_close(default, half)


def test_several_queries_have_one_of_every_part(retriever):
    images = [half_image("blue", "right"), half_image("red", "left")]
    together = retriever.search(text=["red", "blue"], image=images, top_k=3)
    for row, (text, image) in enumerate(zip(["red", "blue"], images, strict=True)):
        alone = retriever.search(text=text, image=image, top_k=3)
        assert torch.equal(together.indices[row], alone.indices)
        torch.testing.assert_close(together.scores[row], alone.scores)
        assert torch.equal(alone.scores, alone.similarities), "similarity alone decides"


@pytest.mark.parametrize(
    "query, message",
    [
        ({}, "give text, image or both"),
        ({"negative_text": "red"}, "give text, image or both"),
        ({"negative_image": half_image("red", "left")}, "give text, image or both"),
        ({"text": "red", "negative_image": [half_image("red", "left")]}, "1 of text, 1 of negative_image: give as"),
        ({"text": ["red", "blue"], "negative_text": ["green"]}, "2 of text, 1 of negative_text: give as many"),
        ({"text": ["red"], "negative_text": "green"}, "1 of text, 1 of negative_text: give as many, all in lists"),
        ({"text": "red", "weights": {"image": 2.0}}, "weights has 'image', and the query has text"),
        (
            {"text": "red", "weights": {"text": 2.0}},
            "weights={'text': 2.0} weigh parts against each other, .* text alone",
        ),
        ({"text": "red", "weights": {"text": 0.0}}, r"weights\['text'\]=0.0 must be above 0"),
        ({"text": "red", "weights": {"text": float("nan")}}, r"weights\['text'\]"),
        ({"text": "red", "negative_text": "blue", "rerank_k": 3}, "the query has several parts, and matching is of"),
    ],
)
def test_bad_queries_are_named(retriever, query, message):
    with pytest.raises(ValueError, match=message):
        retriever.search(**query)


def test_a_single_text_is_matched_as_before():
    model = CBViLAForImageTextRetrieval.from_pretrained(bundled_checkpoint("cbvila-tiny")).eval()
    found = CBViLARetriever(model, CBViLARetriever.from_pretrained("cbvila-tiny").processor, "cpu")
    found.index([half_image(colour, "left") for colour in COLOURS], progress=False)
    scores = found.search(text="a red square", rerank_k=3, top_k=3, similarity_weight=0.0).scores
    assert (scores != found.search(text="a red square", rerank_k=0, top_k=3).scores).any()
    assert (
        query_parts(text="a").parts[0].kind == "texts" and not query_parts(image=half_image("red", "left")).are_several
    )
