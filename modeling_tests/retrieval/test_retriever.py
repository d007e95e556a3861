"""CBViLARetriever against the model's scores of every pair."""

import sys
from collections import deque
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from gallery_items import TEXTS
from PIL import Image
from tiny import build, tiny_processor, tiny_rows
from torch.testing import assert_close

from transformers_cbvila import (
    CBViLAForImageTextRetrieval,
    CBViLAForPreTraining,
    CBViLAProcessor,
    CBViLARetriever,
    bundled_checkpoint,
)
from transformers_cbvila.retrieval.faiss_index import FaissIndex

IMAGES = [row["image"] for row in tiny_rows(9)]


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
def test_search_images_by_text(pictures, every_pair, rerank_k, top_k):
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


def test_search_texts_by_image(every_pair):
    found = retriever().index(texts=TEXTS, progress=False).search(image=IMAGES[4], top_k=3, rerank_k=64)
    logits = every_pair[0][4]
    # Two of the texts are the same: which of them comes first is up to rounding.
    assert_close(found.scores, logits[best(logits, 3)], atol=1e-5, rtol=0)
    assert_close(logits[found.indices], found.scores, atol=1e-5, rtol=0)
    assert len(set(found.indices.tolist())) == 3


@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_search_similarity_weight_adds_similarity(pictures, every_pair, weight):
    logits, cosines = every_pair
    both = logits + weight * float(pictures.model.cbvila.similarity_scale()) * cosines
    found = pictures.search(text=TEXTS, top_k=3, rerank_k=64, similarity_weight=weight)
    for text in range(len(TEXTS)):
        expected = best(both[:, text], 3)
        assert found.indices[text].tolist() == expected.tolist()
        assert_close(found.scores[text], both[expected, text], atol=1e-4, rtol=0)
    assert found.indices.tolist() != pictures.search(text=TEXTS, top_k=3, rerank_k=64).indices.tolist()


def test_search_takes_similarity_weight_of_the_checkpoint(pictures, monkeypatch):
    options = {"text": TEXTS, "top_k": 3, "rerank_k": 64}
    alone, both = pictures.search(**options), pictures.search(**options, similarity_weight=0.5)
    monkeypatch.setattr(pictures.model.config, "similarity_weight", 0.5)
    assert torch.equal(pictures.search(**options).scores, both.scores)
    assert torch.equal(pictures.search(**options, similarity_weight=0).scores, alone.scores)
    by_similarity = pictures.search(text=TEXTS, top_k=3)
    assert torch.equal(by_similarity.scores, by_similarity.similarities)


def test_search_of_one_query_equals_the_first_of_several(pictures):
    one, several = pictures.search(text=TEXTS[0], top_k=3), pictures.search(text=TEXTS[:2], top_k=3)
    assert one.indices.shape == (3,) and one.indices.tolist() == several.indices[0].tolist()
    assert_close(one.scores, several.scores[0], atol=1e-5, rtol=0)


def test_search_within_one_modality_finds_the_query(pictures):
    found = pictures.search(image=IMAGES, top_k=1)
    assert found.indices.flatten().tolist() == list(range(len(IMAGES)))
    assert_close(found.scores, torch.ones(len(IMAGES), 1), atol=1e-5, rtol=0)
    assert retriever().index(texts=TEXTS, progress=False).search(text="green", top_k=1).indices.tolist() == [5]


@pytest.mark.parametrize("shard_bytes", [1, 2**28])
def test_index_folder_is_searched_like_memory(pictures, tmp_path, shard_bytes):
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


def test_index_keep_states_false_ranks_by_similarity(tmp_path, every_pair):
    small = retriever().index(IMAGES, keep_states=False, progress=False)
    small.save(tmp_path / "g")
    for found in (small, retriever().load(tmp_path / "g")):
        output = found.search(text=TEXTS[0], top_k=3)
        assert_close(output.scores, output.similarities)
        assert output.indices.tolist() == best(every_pair[1][:, 0], 3).tolist()


def test_search_gallery_of_one_and_of_equal_images():
    one = retriever().index([IMAGES[2]], progress=False).search(text="left", top_k=5)
    assert one.indices.tolist() == [0] and one.scores.shape == (1,)
    twins = retriever().index([IMAGES[2]] * 3, progress=False).search(text="left", top_k=2, rerank_k=0)
    assert twins.indices.tolist() == [0, 1]


def test_search_without_itm_ranks_by_similarity():
    found = retriever(itm_weight=0.0).index(IMAGES, progress=False).search(text="left")
    assert_close(found.scores, found.similarities)


def test_retriever_from_pretraining_checkpoint(tmp_path, pictures):
    build(CBViLAForPreTraining).save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    loaded = CBViLARetriever.from_pretrained(tmp_path, dtype=torch.float64)
    assert loaded.model.dtype == torch.float64 and not loaded.model.training
    found = loaded.index(IMAGES, progress=False).search(text="left", top_k=2)
    assert found.scores.dtype == torch.float64


def test_retriever_from_pretrained_loads_the_processor_of_the_model(tmp_path, monkeypatch):
    build(CBViLAForPreTraining).save_pretrained(tmp_path / "model")
    tiny_processor().save_pretrained(tmp_path / "model")
    asked = []
    load = CBViLAProcessor.from_pretrained
    monkeypatch.setattr(CBViLAProcessor, "from_pretrained", lambda *args, **o: asked.append(o) or load(*args, **o))
    CBViLARetriever.from_pretrained(tmp_path, subfolder="model", dtype=torch.float64, revision="main")
    assert asked == [{"subfolder": "model", "revision": "main"}]


def test_retriever_from_pretrained_takes_bundled_names():
    assert CBViLARetriever.from_pretrained("cbvila-tiny").model.name_or_path == bundled_checkpoint("cbvila-tiny")


def test_retriever_from_pretrained_rejects_checkpoints_without_retrieval():
    with pytest.raises(
        ValueError, match="cbvila-tiny-easyvqa was not trained for retrieval: it has no .*finetune ret"
    ):
        CBViLARetriever.from_pretrained("cbvila-tiny-easyvqa")


def test_retriever_errors_say_what_to_do(pictures, tmp_path):
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
    with pytest.raises(ValueError, match="by a text, by an image, or by both"):
        pictures.search()
    with pytest.raises(ValueError, match="Encoding texts: there are none"):
        pictures.search(text=[])
    with pytest.raises(ValueError, match="top_k=0"):
        pictures.search(text="a", top_k=0)
    with pytest.raises(FileNotFoundError, match="no folder that a gallery was written to"):
        empty.load(tmp_path / "nowhere")
    pictures.save(tmp_path / "g")
    with pytest.raises(ValueError, match="other weights"):
        CBViLARetriever(build(CBViLAForImageTextRetrieval, seed=1), tiny_processor()).load(tmp_path / "g")
    with pytest.raises(ValueError, match="ITC"):
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


def test_faiss_index_finding_few_leaves_places_empty(every_pair):
    searched = retriever().index(IMAGES, progress=False)
    searched._faiss = FaissIndex(FewFound())
    found = searched.search(text=TEXTS[:2], top_k=3, rerank_k=64)
    for text in (0, 1):
        expected = sorted([6, 3], key=lambda image: -every_pair[0][image, text])
        assert found.indices[text].tolist() == [*expected, -1]
        assert_close(found.scores[text, :2], every_pair[0][expected, text], atol=1e-5, rtol=0)
    assert found.scores[:, 2].tolist() == found.similarities[:, 2].tolist() == [-torch.inf] * 2


def test_faiss_search_equals_exact_search(pictures, tmp_path):
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


# What is no list, and what is more than one


def of_columns(images):
    """The same images in other forms, each in this order."""
    objects = np.empty(len(images), dtype=object)
    objects[:] = images
    yield pd.Series(images, index=range(len(images))[::-1])
    yield pd.Series([None, *images])[1:]
    yield objects
    yield deque(images)
    yield (image for image in images)
    yield np.stack([np.asarray(image) for image in images])
    yield torch.stack([torch.from_numpy(np.array(image)) for image in images])
    yield [np.asarray(image) for image in images]


def test_index_reads_columns_by_position(tmp_path):
    same_size = [image.resize((40, 40)).convert("RGB") for image in IMAGES]
    expected = retriever().index(same_size, progress=False).search(text=TEXTS, top_k=3)
    for number, form in enumerate(of_columns(same_size)):
        folder = tmp_path / str(number)
        searched = retriever().index(form, progress=False, folder=folder)
        found = searched.search(text=TEXTS, top_k=3)
        assert len(searched) == len(IMAGES) and found.indices.tolist() == expected.indices.tolist()
    for form in of_columns(same_size):
        assert retriever().index(form, progress=False).search(text="left").indices.shape == (9,)


def test_index_folder_resumes_with_a_column(tmp_path):
    backwards = pd.Series(IMAGES, index=range(len(IMAGES))[::-1])

    def dying():
        yield from IMAGES[:5]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retriever().index(dying(), folder=tmp_path, shard_bytes=1, batch_size=2, progress=False)
    found = retriever().index(backwards, folder=tmp_path, batch_size=2, progress=False)
    assert found.search(image=IMAGES, top_k=1).indices.flatten().tolist() == list(range(len(IMAGES)))


def test_search_takes_queries_in_every_form(pictures):
    same_size = [image.resize((40, 40)).convert("RGB") for image in IMAGES]
    searched = retriever().index(same_size, progress=False)
    for form in of_columns(same_size):
        assert searched.search(image=form, top_k=1).indices.tolist() == [[i] for i in range(len(IMAGES))]
    one = searched.search(image=np.asarray(same_size[4]), top_k=1)
    assert one.indices.tolist() == [4]
    for texts in (pd.Series(TEXTS), np.array(TEXTS), tuple(TEXTS), iter(TEXTS)):
        assert pictures.search(text=texts, top_k=2).indices.shape == (len(TEXTS), 2)


@pytest.mark.parametrize(
    "images, message",
    [
        (pd.DataFrame({"image": IMAGES}), "images is a table"),
        (dict(enumerate(IMAGES)), "images is a dictionary"),
        (set("ab"), "images is a set, which has no order"),
        (IMAGES[0], "images is one item, <PIL"),
        (np.zeros((8, 8, 3)), "images is one item"),
        ([IMAGES[:2], IMAGES[2:3]], r"images\[0\] holds several items"),
        ([IMAGES[0], np.zeros((2, 8, 8, 3))], r"images\[1\] holds several items, an array of shape \(2, 8, 8, 3\)"),
        ([IMAGES[0], None], r"images\[1\] is missing"),
        (tiny_rows(2), r"images\[0\] is a row with the fields"),
        ("nowhere", "images is one string, 'nowhere', and no folder"),
        (Path("nowhere"), "images is one string, 'nowhere', and no folder"),
        ("x" * 400_000, r"images is one string, .*\(400,000 characters\)"),
    ],
)
def test_index_rejects_other_lists(images, message):
    with pytest.raises(ValueError, match=message) as caught:
        retriever().index(images, progress=False)
    assert len(str(caught.value)) < 600


def test_search_rejects_invalid_queries(pictures):
    for query, message in (
        ({"text": [["left"], ["right"]]}, r"texts\[0\] holds several items"),
        ({"text": {"left": 1}}, r"texts\[0\] is a row"),
        ({"text": pd.DataFrame({"text": TEXTS})}, "texts is a table"),
        ({"image": [[IMAGES[0], IMAGES[1]]]}, r"images\[0\] holds several items"),
        ({"text": 3}, r"texts\[0\] cannot be encoded"),
    ):
        with pytest.raises(ValueError, match=message):
            pictures.search(**query)


@pytest.mark.parametrize("kind", [str, Path])
def test_index_takes_a_folder_of_images(tmp_path, kind):
    names = ["b.png", "a.png", "sub/c.jpg", "Z.PNG", ".hidden.png", ".trash/d.png"]
    for image, name in zip(IMAGES, names, strict=False):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        image.convert("RGB").save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    searched = retriever().index(kind(tmp_path), progress=False)
    assert [file.relative_to(tmp_path).as_posix() for file in searched.files] == [
        "Z.PNG",
        "a.png",
        "b.png",
        "sub/c.jpg",
    ]
    found = searched.search(image=str(tmp_path / "b.png"), top_k=1)
    assert searched.files[int(found.indices[0])] == tmp_path / "b.png"
    assert searched.index(IMAGES, progress=False).files == []
    with pytest.raises(ValueError, match="has no image"):
        (tmp_path / "empty").mkdir()
        searched.index(kind(tmp_path / "empty"))


def test_index_names_broken_items():
    def breaking(error):
        yield from IMAGES[:3]
        raise error

    for error in (OSError("x"), SyntaxError("x"), ZeroDivisionError("x"), Image.DecompressionBombError("x")):
        with pytest.raises(ValueError, match=rf"images\[3\] cannot be read: x \({type(error).__name__}\)"):
            retriever().index(breaking(error), progress=False)


# Defaults


def test_search_uses_rerank_k_of_the_checkpoint(tmp_path, pictures):
    model = build(CBViLAForImageTextRetrieval, rerank_k=4)
    model.save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    searched = CBViLARetriever.from_pretrained(tmp_path).index(IMAGES, progress=False)
    assert searched.rerank_k == 4 and pictures.rerank_k == 0
    expected = pictures.search(text=TEXTS, top_k=3, rerank_k=4)
    found = searched.search(text=TEXTS, top_k=3)
    assert found.indices.tolist() == expected.indices.tolist()
    assert_close(found.scores, expected.scores)
    unmeasured = pictures.search(text=TEXTS, top_k=3)
    assert_close(unmeasured.scores, unmeasured.similarities)
    searched.rerank_k = 0
    assert_close(searched.search(text=TEXTS, top_k=3).scores, unmeasured.scores)
    # where there is nothing to match, a default is no order to match
    assert_close(searched.search(image=IMAGES[0]).scores, searched.search(image=IMAGES[0], rerank_k=0).scores)


def test_options_of_texts_and_folders_are_refused_without_these(pictures, tmp_path):
    with pytest.raises(ValueError, match="max_length=9 is of texts, and there are images alone; leave it out"):
        retriever().index(IMAGES, max_length=9, progress=False)
    with pytest.raises(ValueError, match="max_length=9 is of texts"):
        pictures.search(image=IMAGES[0], max_length=9)
    pictures.search(image=IMAGES[0], text="left", max_length=9)
    with pytest.raises(ValueError, match="shard_bytes=9 is for folder, which is not given. Set both, or neither"):
        retriever().index(IMAGES, shard_bytes=9, progress=False)


def test_search_rejects_rerank_k_where_matching_is_impossible(pictures):
    for searched, query, reason in (
        (pictures, {"image": IMAGES[0]}, "images are indexed, and matching is of an image with a text"),
        (retriever().index(IMAGES, keep_states=False, progress=False), {"text": "left"}, "no states to match"),
        (retriever(itm_weight=0.0).index(IMAGES, progress=False), {"text": "left"}, "trained without matching"),
    ):
        with pytest.raises(ValueError, match=f"rerank_k=5: .*{reason}"):
            searched.search(**query, rerank_k=5)
        with pytest.raises(ValueError, match="similarity_weight=1.0 is added to matching scores"):
            searched.search(**query, similarity_weight=1.0)
    with pytest.raises(ValueError, match="similarity_weight=0.5 .* pass rerank_k=64"):
        pictures.search(text="left", similarity_weight=0.5)


@pytest.mark.parametrize(
    "option", [{"top_k": 0}, {"top_k": "3"}, {"top_k": 1.5}, {"rerank_k": -1}, {"rerank_k": "all"}]
)
def test_search_rejects_invalid_numbers(pictures, option):
    name, value = next(iter(option.items()))
    with pytest.raises(ValueError, match=f"{name}={value!r} must be a whole number of at least [01]"):
        pictures.search(text="left", **option)
    assert pictures.search(text="left", top_k=np.int64(2)).indices.shape == (2,)


def test_search_and_index_warn_of_unknown_texts(pictures):
    with pytest.warns(UserWarning, match="knows nothing of 1 of 2 texts, e.g. '红圆'"):
        pictures.search(text=["left", "红圆"])
    with pytest.warns(UserWarning, match="knows nothing of 1 of 1 texts"):
        pictures.search(text="蓝方")
    with pytest.warns(UserWarning, match="knows nothing of 2 of 3 texts") as caught:
        retriever().index(texts=["红圆", "left", "蓝方"] * 9, batch_size=3, progress=False)
    assert len(caught) == 1  # once, and not for every batch


# Devices


def test_retriever_moves_to_the_accelerator(monkeypatch):
    moved = []
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(CBViLAForImageTextRetrieval, "to", lambda self, device: moved.append(device) or self)
    retriever()
    CBViLARetriever(build(CBViLAForImageTextRetrieval), tiny_processor(), device="cpu")
    CBViLARetriever.from_pretrained("cbvila-tiny")
    CBViLARetriever.from_pretrained("cbvila-tiny", device="cpu")
    retriever().to("cuda:1")
    cuda = torch.device("cuda")
    assert moved == [cuda, "cpu", cuda, "cpu", cuda, "cuda:1"]
    placed_by_map = build(CBViLAForImageTextRetrieval)
    placed_by_map.hf_device_map = {"": "cpu"}
    CBViLARetriever(placed_by_map, tiny_processor())
    assert len(moved) == 6


def test_retriever_device_and_to():
    searched = retriever()
    assert searched.device == torch.device("cpu") and searched.to("cpu") is searched
    assert searched.to("meta").device.type == "meta"


# FAISS in plain words


class UntrainedIndex:
    """An index of FAISS that refuses to learn, in its words."""

    is_trained = False

    def train(self, rows):
        raise RuntimeError(
            "Error in void faiss::Clustering::train_encoded(...) at /project/faiss/Clustering.cpp:283: "
            "Error: 'nx >= static_cast<idx_t>(k)' failed: Number of training points (9) should be at least 300"
        )


class SomeFaiss:
    METRIC_INNER_PRODUCT = 0

    def index_factory(self, width, text, metric):
        if text.startswith("Other"):
            return UntrainedIndex()
        if text.startswith("IVF"):
            return UntrainedIndex()
        raise RuntimeError(f"Error in faiss::index_factory(...) at /project/faiss/f.cpp:9: could not parse {text}")


@pytest.mark.parametrize(
    "text, message",
    [
        ("IVF1024,Flat", r"'IVF1024,Flat' has too few items to train on: 9 \(1,024 are needed\).*\"IVF1,Flat\""),
        ("IVF4,PQ16", r"9 \(256 are needed"),
        ("IVF4,PQ16x4", r"9 \(16 are needed"),
        ("Other", r"too few items to train on: 9 \(Number of training points \(9\)"),
        ("IFV64,Flat", "'IFV64,Flat': FAISS makes no such index of embeddings 16 wide .could not parse.*\"HNSW32\""),
        (64, "string_factory=64.*FAISS takes a string"),
    ],
)
def test_add_faiss_index_explains_faiss_errors(pictures, monkeypatch, text, message):
    monkeypatch.setitem(sys.modules, "faiss", SomeFaiss())
    with pytest.raises(ValueError, match=message) as caught:
        pictures.add_faiss_index(text)
    assert "/project" not in str(caught.value) and "static_cast" not in str(caught.value)
    with pytest.raises(ValueError, match="train_rows=0"):
        pictures.add_faiss_index("Flat", train_rows=0)


def test_add_faiss_index_explains_errors_of_installed_faiss(pictures, tmp_path):
    pytest.importorskip("faiss")
    for text, message in (
        ("IVF1024,Flat", "1,024 are needed"),
        ("IFV4", "makes no such index"),
        ("PQ7", "no such index"),
    ):
        with pytest.raises(ValueError, match=message):
            pictures.add_faiss_index(text)
    pictures.save(tmp_path / "g")
    (tmp_path / "g" / "index.faiss").write_bytes(b"no index")
    with pytest.raises(ValueError, match="is no FAISS index, or a damaged one"):
        retriever().load(tmp_path / "g")
