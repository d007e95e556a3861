"""Search in the items that a filter lets pass equals search in an index of these alone."""

import pytest
import torch
from tiny import build, tiny_processor, tiny_rows
from torch.testing import assert_close

from transformers_cbvila import CBViLAForImageTextRetrieval, CBViLARetriever
from transformers_cbvila.retrieval.faiss_index import FaissIndex
from transformers_cbvila.retrieval.gallery import Encoded
from transformers_cbvila.retrieval.selected_gallery import SelectedGallery

ROWS = tiny_rows(12)
IMAGES = [row["image"] for row in ROWS]
METADATA = [
    {"colour": row["keywords"][0], "number": number} | ({"even": True} if number % 2 == 0 else {})
    for number, row in enumerate(ROWS)
]
TEXTS = ["left half red", "right", "top half blue ?"]
MODEL = build(CBViLAForImageTextRetrieval)


def retriever():
    return CBViLARetriever(MODEL, tiny_processor())


@pytest.fixture(scope="module")
def pictures():
    return retriever().index(IMAGES, progress=False, metadata=METADATA)


@pytest.mark.parametrize("options", [{"rerank_k": 0}, {"rerank_k": 2}, {"rerank_k": 64, "similarity_weight": 0.5}])
@pytest.mark.parametrize(
    "chosen, rows",
    [
        (lambda row: row["number"] > 7, [8, 9, 10, 11]),
        ({"number": 3}, [3]),
        ({"number": [5, 99, 2]}, [2, 5]),
        ({"number": [0, 1, 2, 3], "even": True}, [0, 2]),
    ],
)
def test_a_filter_is_a_search_in_what_passes(pictures, options, chosen, rows):
    alone = retriever().index([IMAGES[row] for row in rows], progress=False)
    expected, found = (
        alone.search(text=TEXTS, top_k=3, **options),
        pictures.search(text=TEXTS, top_k=3, filter=chosen, **options),
    )
    assert found.indices.tolist() == [[rows[place] for place in places] for places in expected.indices.tolist()]
    assert_close(found.scores, expected.scores, atol=1e-5, rtol=0)
    assert_close(found.similarities, expected.similarities, atol=1e-5, rtol=0)


def test_a_filter_that_nothing_passes_finds_nothing(pictures):
    for options in ({}, {"rerank_k": 2}, {"fold_duplicates": 0.9}):
        found = pictures.search(text="left", filter={"number": -1}, **options)
        assert all(value.shape == (0,) for value in found.values())
        assert pictures.search(text=TEXTS, filter=lambda row: False, **options).indices.shape == (3, 0)


def test_metadata_stay_with_the_index(pictures, tmp_path):
    pictures.save(tmp_path / "saved")
    on_disk = retriever().index(IMAGES, folder=tmp_path / "g", progress=False, metadata=iter(METADATA))
    expected = pictures.search(text="left", filter={"even": True}).indices.tolist()
    for found in (on_disk, retriever().load(tmp_path / "saved"), retriever().load(tmp_path / "g")):
        assert found.metadata == METADATA and found.files == []
        assert found.search(text="left", filter={"even": True}).indices.tolist() == expected
    assert retriever().index(IMAGES, folder=tmp_path / "g", progress=False).metadata == []
    assert retriever().load(tmp_path / "g").metadata == []


def test_with_a_filter_every_item_that_passes_is_compared(pictures):
    class Blind:
        """An index that finds nothing."""

        ntotal = len(IMAGES)

        def search(self, queries, k):
            return torch.zeros(len(queries), k).numpy(), torch.full((len(queries), k), -1).numpy()

    searched = retriever().index(IMAGES, progress=False, metadata=METADATA)
    searched._faiss = FaissIndex(Blind())
    assert searched.search(text="left", top_k=2).indices.tolist() == [-1, -1]
    for options in ({"filter": {"even": True}}, {"fold_duplicates": 1.0}):
        assert torch.equal(
            searched.search(text="left", **options).indices, pictures.search(text="left", **options).indices
        )


@pytest.mark.parametrize(
    "chosen, message",
    [
        ({"colors": "red"}, "filter has the column 'colors', and the metadata have .*; did you mean colour"),
        ({"colour": [["red"]]}, r"filter\['colour'\] has \['red'\]: values are texts, numbers"),
        ("red", "filter='red' must be a function of an item's metadata, or a dictionary"),
    ],
)
def test_bad_filters_are_named(pictures, chosen, message):
    with pytest.raises(ValueError, match=message):
        pictures.search(text="left", filter=chosen)


def test_bad_metadata_are_named():
    index = retriever().index
    with pytest.raises(ValueError, match="metadata has 2 rows, and there are 3 images: give one for each"):
        index(IMAGES[:3], metadata=METADATA[:2], progress=False)
    with pytest.raises(ValueError, match="metadata has 2 rows, and there are 3 texts"):
        index(texts=iter(TEXTS), metadata=METADATA[:2], progress=False)
    with pytest.raises(ValueError, match=r"metadata\[1\] is 3: each item has a dictionary of its columns"):
        index(IMAGES[:2], metadata=[{}, 3], progress=False)
    with pytest.raises(ValueError, match="filter: what is indexed has no metadata"):
        index(texts=TEXTS, progress=False).search(text="left", filter={"a": 1})


def test_selected_rows_come_from_all_blocks_in_their_order():
    class Blocks:
        blocks = torch.arange(20.0).view(10, 2).split([3, 1, 6])
        states = torch.arange(10)

    rows = torch.tensor([9, 0, 3, 2, 9, 4])
    found = SelectedGallery(Blocks(), rows)
    assert_close(torch.cat(list(found.blocks))[:, 0], 2.0 * rows)
    assert [int(found.states[row]) for row in range(len(found.states))] == rows.tolist()
    assert len(SelectedGallery(Encoded(torch.eye(3), []), rows[:1]).states) == 0
