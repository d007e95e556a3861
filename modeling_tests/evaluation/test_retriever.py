"""Search in pictures and texts, against the model's own scores of every pair."""

import sys

import pytest
import torch
from tiny import build, tiny_processor, tiny_rows
from torch.testing import assert_close

from transformers_cbvila import (
    CBViLAForImageTextRetrieval,
    CBViLAForPreTraining,
    CBViLAProcessor,
    CBViLARetriever,
    bundled_checkpoint,
)
from transformers_cbvila.evaluation.faiss_index import FaissIndex

IMAGES = [row["image"] for row in tiny_rows(9)]
TEXTS = ["left half red", "right", "a red half is left", "right", "top half blue ?", "green"]


def retriever(**options):
    return CBViLARetriever(build(CBViLAForImageTextRetrieval, **options), tiny_processor())


@pytest.fixture(scope="module")
def pictures():
    return retriever().index(IMAGES, batch_size=4, progress=False)


@pytest.fixture(scope="module")
@torch.no_grad()
def every_pair():
    """Matching logits and cosines (images, texts) of the plain model, each pair in a pass of its own."""
    model, processor = retriever().model, tiny_processor()
    found = [[model(**processor(images=[i], text=[t], return_tensors="pt")) for t in TEXTS] for i in IMAGES]
    logits = torch.tensor([[pair.itm_logits[0, 1] - pair.itm_logits[0, 0] for pair in row] for row in found])
    return logits, torch.tensor([[(pair.image_embeds @ pair.text_embeds.T).item() for pair in row] for row in found])


def best(scores, k):
    return scores.sort(descending=True, stable=True).indices[:k]


@pytest.mark.parametrize("rerank_k, top_k", [(4, 4), (4, 2), (2, 4), (64, 3), (0, 4), (None, 20)])
def test_a_text_finds_pictures(pictures, every_pair, rerank_k, top_k):
    logits, cosines = every_pair
    found = pictures.search(text=TEXTS, top_k=top_k, rerank_k=rerank_k)
    assert found.indices.shape == found.scores.shape == (len(TEXTS), min(top_k, len(IMAGES)))
    for text in range(len(TEXTS)):
        if rerank_k:
            shortlist = best(cosines[:, text], max(rerank_k, top_k))
            expected = shortlist[best(logits[shortlist, text], top_k)]
        else:
            expected = best(cosines[:, text], top_k)
        assert found.indices[text].tolist() == expected.tolist()
        scores = logits if rerank_k else cosines
        assert_close(found.scores[text], scores[expected, text], atol=1e-5, rtol=0)
        assert_close(found.similarities[text], cosines[expected, text], atol=1e-5, rtol=0)


def test_a_picture_finds_texts(every_pair):
    found = retriever().index(texts=TEXTS, progress=False).search(image=IMAGES[4], top_k=3)
    logits = every_pair[0][4]
    # Two of the texts are the same: which of them comes first is up to rounding.
    assert_close(found.scores, logits[best(logits, 3)], atol=1e-5, rtol=0)
    assert_close(logits[found.indices], found.scores, atol=1e-5, rtol=0)
    assert len(set(found.indices.tolist())) == 3


@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_similarity_joins_matching(pictures, every_pair, weight):
    logits, cosines = every_pair
    both = logits + weight * float(pictures.model.cbvila.similarity_scale()) * cosines
    found = pictures.search(text=TEXTS, top_k=3, similarity_weight=weight)
    for text in range(len(TEXTS)):
        expected = best(both[:, text], 3)
        assert found.indices[text].tolist() == expected.tolist()
        assert_close(found.scores[text], both[expected, text], atol=1e-4, rtol=0)
    assert found.indices.tolist() != pictures.search(text=TEXTS, top_k=3).indices.tolist()


def test_one_query_is_the_first_of_several(pictures):
    one, several = pictures.search(text=TEXTS[0], top_k=3), pictures.search(text=TEXTS[:2], top_k=3)
    assert one.indices.shape == (3,) and one.indices.tolist() == several.indices[0].tolist()
    assert_close(one.scores, several.scores[0], atol=1e-5, rtol=0)


def test_a_picture_finds_itself_among_pictures_and_a_text_among_texts(pictures):
    found = pictures.search(image=IMAGES, top_k=1)
    assert found.indices.flatten().tolist() == list(range(len(IMAGES)))
    assert_close(found.scores, torch.ones(len(IMAGES), 1), atol=1e-5, rtol=0)
    assert retriever().index(texts=TEXTS, progress=False).search(text="green", top_k=1).indices.tolist() == [5]


@pytest.mark.parametrize("shard_bytes", [1, 2**28])
def test_a_gallery_on_disk_is_searched_alike(pictures, tmp_path, shard_bytes):
    expected = pictures.search(text=TEXTS, top_k=4, rerank_k=4)
    pictures.save(tmp_path / "saved")
    on_disk = retriever().index(IMAGES, folder=tmp_path / "g", shard_bytes=shard_bytes, batch_size=4, progress=False)
    on_disk.save(tmp_path / "g")  # where it is: nothing to do
    on_disk.save(tmp_path / "copy")
    for found in (on_disk, *(retriever().load(tmp_path / name) for name in ("saved", "g", "copy"))):
        assert len(found) == len(IMAGES)
        output = found.search(text=TEXTS, top_k=4, rerank_k=4)
        assert output.indices.tolist() == expected.indices.tolist()
        assert_close(output.scores, expected.scores, atol=1e-5, rtol=0)


def test_without_states_similarity_decides(tmp_path, every_pair):
    small = retriever().index(IMAGES, keep_states=False, progress=False)
    small.save(tmp_path / "g")
    for found in (small, retriever().load(tmp_path / "g")):
        output = found.search(text=TEXTS[0], top_k=3)
        assert_close(output.scores, output.similarities)
        assert output.indices.tolist() == best(every_pair[1][:, 0], 3).tolist()


def test_a_gallery_of_one_and_equal_pictures():
    one = retriever().index([IMAGES[2]], progress=False).search(text="left", top_k=5)
    assert one.indices.tolist() == [0] and one.scores.shape == (1,)
    twins = retriever().index([IMAGES[2]] * 3, progress=False).search(text="left", top_k=2, rerank_k=0)
    assert twins.indices.tolist() == [0, 1]


def test_a_model_without_matching_searches_by_similarity():
    found = retriever(itm_weight=0.0).index(IMAGES, progress=False).search(text="left")
    assert_close(found.scores, found.similarities)


def test_from_pretrained_with_the_heads_of_pretraining(tmp_path, pictures):
    build(CBViLAForPreTraining).save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    loaded = CBViLARetriever.from_pretrained(tmp_path, dtype=torch.float64)
    assert loaded.model.dtype == torch.float64 and not loaded.model.training
    found = loaded.index(IMAGES, progress=False).search(text="left", top_k=2)
    assert found.scores.dtype == torch.float64


def test_processors_come_from_where_the_model_comes_from(tmp_path, monkeypatch):
    build(CBViLAForPreTraining).save_pretrained(tmp_path / "model")
    tiny_processor().save_pretrained(tmp_path / "model")
    asked = []
    load = CBViLAProcessor.from_pretrained
    monkeypatch.setattr(CBViLAProcessor, "from_pretrained", lambda *args, **o: asked.append(o) or load(*args, **o))
    CBViLARetriever.from_pretrained(tmp_path, subfolder="model", dtype=torch.float64, revision="main")
    assert asked == [{"subfolder": "model", "revision": "main"}]


def test_bundled_checkpoints_go_by_their_names():
    assert CBViLARetriever.from_pretrained("cbvila-tiny").model.name_or_path == bundled_checkpoint("cbvila-tiny")


def test_a_checkpoint_that_was_not_trained_for_retrieval_is_refused():
    with pytest.raises(
        ValueError, match="cbvila-tiny-easyvqa was not trained for retrieval: it has no .*finetune ret"
    ):
        CBViLARetriever.from_pretrained("cbvila-tiny-easyvqa")


def test_mistakes_say_what_to_do(pictures, tmp_path):
    empty = retriever()
    assert len(empty) == 0
    for call in (lambda: empty.search(text="a"), lambda: empty.save(tmp_path), empty.add_faiss_index):
        with pytest.raises(ValueError, match="Nothing is indexed: call index"):
            call()
    with pytest.raises(ValueError, match="Encoding images: there are none"):
        empty.index([])
    with pytest.raises(ValueError, match="Index images or texts"):
        empty.index(IMAGES, TEXTS)
    with pytest.raises(ValueError, match="texts is one string"):
        empty.index(texts="a cat")
    with pytest.raises(ValueError, match="by text or by image"):
        pictures.search(text="a", image=IMAGES[0])
    with pytest.raises(ValueError, match="Encoding texts: there are none"):
        pictures.search(text=[])
    with pytest.raises(ValueError, match="top_k=0"):
        pictures.search(text="a", top_k=0)
    with pytest.raises(FileNotFoundError, match="no folder that a gallery was written to"):
        empty.load(tmp_path / "nowhere")
    pictures.save(tmp_path / "g")
    with pytest.raises(ValueError, match="other weights"):
        CBViLARetriever(build(CBViLAForImageTextRetrieval, seed=1), tiny_processor()).load(tmp_path / "g")
    with pytest.raises(ValueError, match="itc_weight=0"):
        retriever(itc_weight=0.0).index(IMAGES, progress=False).search(text="a")


def test_faiss_missing_names_the_install_command(pictures, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r'pip install "faiss-cpu"'):
        pictures.add_faiss_index()


class FewFound:
    """An index that finds two items of what it is asked for, as one that looks into few cells may."""

    ntotal = len(IMAGES)

    def search(self, queries, k):
        rows = torch.full((len(queries), k), -1)
        rows[:, :2] = torch.tensor([6, 3])
        return torch.full((len(queries), k), 0.5).numpy(), rows.numpy()


def test_an_index_that_finds_few_leaves_places_empty(every_pair):
    searched = retriever().index(IMAGES, progress=False)
    searched._faiss = FaissIndex(FewFound())
    found = searched.search(text=TEXTS[:2], top_k=3)
    for text in (0, 1):
        expected = sorted([6, 3], key=lambda image: -every_pair[0][image, text])
        assert found.indices[text].tolist() == [*expected, -1]
        assert_close(found.scores[text, :2], every_pair[0][expected, text], atol=1e-5, rtol=0)
    assert found.scores[:, 2].tolist() == found.similarities[:, 2].tolist() == [-torch.inf] * 2


def test_faiss_compares_as_we_do(pictures, tmp_path):
    pytest.importorskip("faiss")
    expected = pictures.search(text=TEXTS, top_k=4, rerank_k=4)
    pictures.save(tmp_path / "g")
    indexed = retriever().load(tmp_path / "g").add_faiss_index()
    indexed.save(tmp_path / "g")
    cells = retriever().load(tmp_path / "g").add_faiss_index("IVF2,Flat", train_rows=5)
    for found in (indexed, retriever().load(tmp_path / "g")):
        output = found.search(text=TEXTS, top_k=4, rerank_k=4)
        assert output.indices.tolist() == expected.indices.tolist()
        assert_close(output.scores, expected.scores, atol=1e-5, rtol=0)
    assert len(cells.search(text="left", top_k=20).indices) == len(IMAGES)
