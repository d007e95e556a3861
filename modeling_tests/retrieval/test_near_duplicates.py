"""Near-duplicates are folded into the most similar one of them."""

import pytest
import torch
import torch.nn.functional as F
from tiny import build, tiny_processor, tiny_rows
from torch.testing import assert_close

from transformers_cbvila import CBViLAForImageTextRetrieval, CBViLARetriever
from transformers_cbvila.retrieval.near_duplicates import most_distinct
from transformers_cbvila.retrieval.similarity import most_similar

IMAGES = [row["image"] for row in tiny_rows(6)]
TEXTS = ["left half red", "right"]


@pytest.fixture(scope="module")
def pictures():
    """Three copies of each of six pictures."""
    return CBViLARetriever(build(CBViLAForImageTextRetrieval), tiny_processor()).index(IMAGES * 3, progress=False)


def greedily(query, gallery, k, threshold):
    """Each group by its definition, from all cosines at once."""
    cosines, between = gallery @ query, gallery @ gallery.T
    left, found = list(range(len(gallery))), []
    while left and len(found) < k:
        best = max(left, key=lambda row: (float(cosines[row]), -row))
        group = [row for row in left if row == best or between[best, row] >= threshold]
        found.append((best, len(group) - 1))
        left = [row for row in left if row not in group]
    return found


@pytest.mark.parametrize("threshold", [0.2, 0.6, 0.95])
@pytest.mark.parametrize("k", [1, 5, 60])
def test_groups_are_formed_greedily(threshold, k):
    draws = torch.Generator().manual_seed(0)
    gallery = F.normalize(torch.randn(50, 6, generator=draws), dim=-1)
    queries = F.normalize(torch.randn(3, 6, generator=draws), dim=-1)
    found = most_distinct(queries, gallery.split([20, 1, 29]), k, threshold)
    for query, cosines, rows, folded in zip(queries, *found, strict=True):
        expected = greedily(query, gallery, k, threshold)
        count = len(expected)
        assert list(zip(rows[:count].tolist(), folded[:count].tolist(), strict=True)) == expected
        assert_close(cosines[:count], gallery[rows[:count]] @ query)
        assert rows[count:].eq(-1).all() and cosines[count:].eq(-torch.inf).all() and folded[count:].eq(0).all()
        if k == 60:
            assert count + int(folded.sum()) == 50, "each item is found or folded"


def test_without_near_duplicates_it_is_the_usual_search():
    gallery = torch.eye(8)
    queries = F.normalize(torch.rand(2, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    cosines, rows, folded = most_distinct(queries, [gallery], 4, 0.9)
    expected = most_similar([queries], [gallery], 4)
    assert torch.equal(rows, expected[1]) and torch.equal(cosines, expected[0]) and not folded.any()


@pytest.mark.parametrize("options", [{}, {"rerank_k": 4}])
def test_copies_are_found_once(pictures, options):
    found = pictures.search(text=TEXTS, top_k=4, fold_duplicates=1.0, **options)
    single = CBViLARetriever(pictures.model, pictures.processor).index(IMAGES, progress=False)
    expected = single.search(text=TEXTS, top_k=4, **options)
    assert (found.indices % 6).tolist() == expected.indices.tolist()
    assert_close(found.scores, expected.scores, atol=1e-5, rtol=0)
    assert found.folded.tolist() == [[2] * 4] * 2
    assert pictures.search(text=TEXTS[0]).folded is None


def test_re_ranking_keeps_what_was_folded_beside_its_item(pictures):
    some = CBViLARetriever(pictures.model, pictures.processor)
    some.index(IMAGES + IMAGES[2:3] + IMAGES[4:5] * 2, progress=False)
    for options in ({}, {"rerank_k": 6}):
        found = some.search(text=TEXTS[0], top_k=6, fold_duplicates=1.0, **options)
        pictures = [{6: 2, 7: 4, 8: 4}.get(row, row) for row in found.indices.tolist()]
        assert dict(zip(pictures, found.folded.tolist(), strict=True)) == {0: 0, 1: 0, 2: 1, 3: 0, 4: 2, 5: 0}


@pytest.mark.parametrize("value", [0, -0.5, 1.5, float("nan"), "all", True])
def test_thresholds_that_are_no_cosines_are_refused(pictures, value):
    with pytest.raises(ValueError, match="fold_duplicates="):
        pictures.search(text="left", fold_duplicates=value)
