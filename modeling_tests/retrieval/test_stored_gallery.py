"""Galleries on disk equal those in memory, for every shard size and after interrupted runs."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from gallery_items import TEXTS
from PIL import Image
from tiny import build, half_image, tiny_processor, tiny_rows
from torch.testing import assert_close

from transformers_cbvila.model.image_processing_pil_cbvila import CBViLAImageProcessorPil
from transformers_cbvila.model.modeling_cbvila_image_text_retrieval import CBViLAForImageTextRetrieval
from transformers_cbvila.model.processing_cbvila import CBViLAProcessor
from transformers_cbvila.retrieval import pair_matching
from transformers_cbvila.retrieval.encoding import GalleryEncoder
from transformers_cbvila.retrieval.gallery import Encoded
from transformers_cbvila.retrieval.gallery_identity import describe, processor_id
from transformers_cbvila.retrieval.gallery_writing import save_gallery, store_gallery
from transformers_cbvila.retrieval.pair_matching import match_pairs
from transformers_cbvila.retrieval.reranking import rerank, retrieve_in_two_stages
from transformers_cbvila.retrieval.retriever import CBViLARetriever
from transformers_cbvila.retrieval.shards import Shards, read_shards, shard_files
from transformers_cbvila.retrieval.stored_gallery import StoredGallery

IMAGES = [row["image"] for row in tiny_rows(7)]
QUIET = {"progress": False}


@pytest.fixture(scope="module")
def model():
    return build(CBViLAForImageTextRetrieval)


def store(folder, model, kind="texts", items=TEXTS, **options):
    files = {"shard_bytes": options.pop("shard_bytes")} if "shard_bytes" in options else {}
    return store_gallery(folder, encoder(model, kind, **{"batch_size": 2, **options}), items, **files)


def encoder(model, kind, **options):
    return GalleryEncoder(model, tiny_processor(), kind, **QUIET, **options)


class KilledProcessError(Exception):
    """Stands for the death of the process while items are read."""


def dying(items, after):
    """The items, until the process is killed."""
    for row, item in enumerate(items):
        if row == after:
            raise KilledProcessError
        yield item


def assert_same(gallery, expected):
    assert_close(torch.cat(list(gallery.blocks)), torch.cat(list(expected.blocks)), atol=1e-6, rtol=0)
    assert len(gallery.states) == len(expected.states)
    for ours, theirs in zip(gallery.states, expected.states, strict=True):
        assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shard_bytes", [1, 3000, 2**28])
def test_store_gallery_equals_encoded_items(model, tmp_path, shard_bytes):
    texts = store(tmp_path / "t", model, shard_bytes=shard_bytes)
    images = store(tmp_path / "i", model, "images", IMAGES, shard_bytes=shard_bytes)
    assert_same(texts, encoder(model, "texts").encode(TEXTS))
    assert_same(images, encoder(model, "images").encode(IMAGES))
    assert len(shard_files(tmp_path / "t")) == {1: 3, 3000: 1, 2**28: 1}[shard_bytes]
    with pytest.raises(IndexError):
        texts.states[len(TEXTS)]


def test_store_gallery_keeps_bfloat16_exactly(tmp_path):
    model = build(CBViLAForImageTextRetrieval).to(torch.bfloat16)
    stored, texts = store(tmp_path, model), encoder(model, "texts", batch_size=2).encode(TEXTS)
    assert stored.states[0].dtype == torch.bfloat16
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(stored.states, texts.states, strict=True))


def test_store_gallery_resumes_and_drops_unfinished_shards(model, tmp_path):
    with pytest.raises(KilledProcessError):
        store(tmp_path, model, "images", dying(IMAGES, 5), shard_bytes=1)
    assert len(shard_files(tmp_path)) == 2  # of two images each; the fifth was not in a batch yet
    (tmp_path / "shard-00002.arrow.unfinished").write_bytes(b"half a shard")
    with pytest.raises(ValueError, match="isn't complete .4 items so far"):
        StoredGallery(tmp_path)
    seen = []

    class Watched(list):
        def __getitem__(self, row):
            seen.append(row)
            return super().__getitem__(row)

    gallery = store(tmp_path, model, "images", Watched(IMAGES), shard_bytes=1)
    looked_at, encoded = seen[:3], seen[3:]
    assert looked_at == [0, 2, 3] and encoded == [4, 5, 6]
    assert not list(tmp_path.glob("*.unfinished"))
    assert_same(gallery, encoder(model, "images").encode(IMAGES))
    seen.clear()
    assert_same(store(tmp_path, model, "images", Watched(IMAGES)), gallery)  # nothing is left to do
    assert seen == [0, 3, 6], "looked at alone"


def test_store_gallery_resumes_with_a_generator(model, tmp_path):
    with pytest.raises(KilledProcessError):
        store(tmp_path, model, items=dying(TEXTS, 3), shard_bytes=1)
    gallery = store(tmp_path, model, items=iter(TEXTS), shard_bytes=1)
    assert_same(gallery, encoder(model, "texts").encode(TEXTS))


def test_store_gallery_rejects_folders_of_other_contents(model, tmp_path):
    store(tmp_path / "texts", model)
    for items, message in ((TEXTS[:3], "content="), (TEXTS[:-1] + ["red"], "content=")):
        with pytest.raises(ValueError, match=message):
            store(tmp_path / "texts", model, items=items)
    with pytest.raises(ValueError, match="content="):
        store(tmp_path / "texts", model, items=iter(TEXTS))
    with pytest.raises(ValueError, match="kind='texts', and this is kind='images'"):
        store(tmp_path / "texts", model, "images", IMAGES)
    with pytest.raises(ValueError, match="weights="):
        store(tmp_path / "texts", build(CBViLAForImageTextRetrieval, seed=1))
    store(tmp_path / "images", model, "images", IMAGES)
    with pytest.raises(ValueError, match="holds 7 images, and these are 6"):
        store(tmp_path / "images", model, "images", IMAGES[:6])
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        store(tmp_path / "letters", model)
    with pytest.raises(FileNotFoundError, match="no folder that a gallery was written to"):
        StoredGallery(tmp_path / "nowhere")


def saved(folder, colours):
    folder.mkdir(exist_ok=True)
    for name, colour in zip("abc", colours, strict=True):
        half_image(colour, "top").save(folder / f"{name}.png")
    return [folder / f"{name}.png" for name in "abc"]


@pytest.mark.parametrize("kind", [str, Path], ids=["strings", "paths"])
def test_store_gallery_notices_changed_files(model, tmp_path, kind):
    paths = [kind(path) for path in saved(tmp_path / "one", ["red", "green", "blue"])]
    first = store(tmp_path / "gallery", model, "images", paths)
    assert_same(store(tmp_path / "gallery", model, "images", tuple(paths)), first)
    others = [kind(path) for path in saved(tmp_path / "two", ["grey", "red", "green"])]
    with pytest.raises(ValueError, match="content="):
        store(tmp_path / "gallery", model, "images", others)
    os.utime(paths[1], ns=(0, 0))
    with pytest.raises(ValueError, match="content="):
        store(tmp_path / "gallery", model, "images", paths)


def test_store_gallery_notices_other_images_in_memory(model, tmp_path):
    gallery = store(tmp_path, model, "images", IMAGES)
    assert_same(store(tmp_path, model, "images", dying(IMAGES, None)), gallery)
    for other, place in ((IMAGES[1:] + IMAGES[:1], 0), (IMAGES[:-1] + [half_image("grey", "top")], 6)):
        with pytest.raises(ValueError, match=f"holds other items than these, item {place} for one"):
            store(tmp_path, model, "images", other)
    with pytest.raises(ValueError, match="holds other items than these, item 0"):
        store(tmp_path, model, "images", dying(IMAGES[1:], None))


def test_save_gallery_leaves_neighbouring_folders_alone(model, tmp_path):
    (tmp_path / "gallery.unfinished").mkdir()
    (tmp_path / "gallery.unfinished" / "mine.txt").write_text("mine")
    retriever = CBViLARetriever(model, tiny_processor()).index(IMAGES, **QUIET)
    for _ in range(2):
        retriever.save(tmp_path / "gallery")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gallery", "gallery.unfinished"]
    assert (tmp_path / "gallery.unfinished" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("kind, items, tower", [("images", IMAGES, "vision"), ("texts", TEXTS, "text")])
def test_store_gallery_rejects_embeddings_that_are_not_finite(kind, items, tower, tmp_path):
    broken = build(CBViLAForImageTextRetrieval)
    with torch.no_grad():
        broken.cbvila.get_parameter(f"{tower}_projection.weight").fill_(torch.nan)
    with pytest.raises(ValueError, match=rf"embedding of {kind}\[0\] is not finite: the model's weights are broken"):
        store(tmp_path, broken, kind, items)


def other_processor():
    processor = tiny_processor()
    processor.image_processor.size = {"height": 24, "width": 24}
    processor.tokenizer.add_tokens(["purple"])
    return processor


@pytest.mark.parametrize("kind, items", [("images", IMAGES), ("texts", TEXTS)])
def test_store_gallery_rejects_another_processor(model, tmp_path, kind, items):
    with pytest.raises(KilledProcessError):
        store(tmp_path, model, kind, dying(items, 5), shard_bytes=1)
    with pytest.raises(ValueError, match="was written with processor="):
        store_gallery(tmp_path, GalleryEncoder(model, other_processor(), kind, **QUIET), iter(items))
    tiny_processor().save_pretrained(tmp_path / "p")
    same = CBViLAProcessor.from_pretrained(tmp_path / "p")
    shutil.rmtree(tmp_path / "p")
    store_gallery(tmp_path, GalleryEncoder(model, same, kind, **QUIET), iter(items))
    assert CBViLARetriever(model, tiny_processor()).load(tmp_path)
    with pytest.raises(ValueError, match="encoded with another processor"):
        CBViLARetriever(model, other_processor()).load(tmp_path)


class Renamed(CBViLAImageProcessorPil):
    """As the class on torchvision: the same under another name."""


def test_processor_id_depends_on_behaviour_only():
    ours = processor_id(tiny_processor(), "images")
    for change in ({"image_mean": [0.5] * 3}, {"do_normalize": False}, {"resample": 2}, {"rescale_factor": 1.0}):
        changed = tiny_processor()
        vars(changed.image_processor).update(change)
        assert processor_id(changed, "images") != ours, change
    processor = tiny_processor()
    renamed = CBViLAProcessor(Renamed(size={"height": 32, "width": 32}), processor.tokenizer)
    assert renamed.image_processor.to_dict() != processor.image_processor.to_dict()
    assert processor_id(renamed, "images") == ours
    without_end = CBViLAProcessor(tiny_processor().image_processor, tiny_processor().tokenizer, add_sep_token=False)
    assert processor_id(without_end, "texts") != processor_id(tiny_processor(), "texts")
    assert processor_id(without_end, "images") == ours


def test_store_gallery_without_processor_id_can_be_searched_only(model, tmp_path):
    texts = store(tmp_path, model)
    file = tmp_path / "description.json"
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "processor"}))
    assert_same(StoredGallery(tmp_path), texts)
    assert CBViLARetriever(model, other_processor()).load(tmp_path)
    with pytest.raises(ValueError, match="from before galleries recorded their processor"):
        store(tmp_path, model)


def test_save_gallery_replaces_galleries_only(model, tmp_path):
    folder, first = tmp_path / "g", Encoded(torch.eye(3), [])
    save_gallery(folder, describe(encoder(model, "texts", keep_states=False)), first)
    texts = encoder(model, "texts").encode(TEXTS)
    save_gallery(folder, describe(encoder(model, "texts")), texts)
    assert_same(StoredGallery(folder), texts)
    (tmp_path / "a.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        save_gallery(tmp_path, describe(encoder(model, "texts")), texts)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "g"]


def test_store_gallery_names_a_bad_item(model, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"images\[3\] cannot be encoded: .*broken.png"):
        store(tmp_path / "i", model, "images", [*IMAGES[:3], str(broken), *IMAGES[3:]], batch_size=4)
    with pytest.raises(ValueError, match=r"texts\[5\] cannot be encoded: .*empty"):
        store(tmp_path / "t", model, items=[*TEXTS[:5], ""], batch_size=4)

    def unreadable():
        yield IMAGES[0]
        raise OSError("the disk is gone")

    with pytest.raises(ValueError, match=r"images\[1\] cannot be read: the disk is gone"):
        store(tmp_path / "r", model, "images", unreadable())


def test_store_gallery_of_images_of_all_sizes(model, tmp_path):
    mixed = [Image.new("RGB", size, "red") for size in ((5, 40), (64, 64), (31, 7))]
    gallery = store(tmp_path, model, "images", mixed)
    assert {tuple(states.shape) for states in gallery.states} == {(17, 32)}


ALL = torch.cartesian_prod(torch.arange(len(IMAGES)), torch.arange(len(TEXTS)))


def test_match_pairs_resumes_stored_logits(model, tmp_path, monkeypatch):
    images, texts = (store(tmp_path / k, model, k, i) for k, i in (("images", IMAGES), ("texts", TEXTS)))
    expected = match_pairs(model, images, texts, ALL, progress=False)
    options = {"images_per_chunk": 1, "pairs_per_batch": 4, "folder": tmp_path / "m", "seconds_per_shard": 0, **QUIET}
    match, calls = pair_matching._match, []

    def counted(*args):
        if len(calls) == limit:
            raise KilledProcessError
        calls.append(1)
        return match(*args)

    monkeypatch.setattr(pair_matching, "_match", counted)
    limit = 9  # batches of 4 and 2 pairs: four images, and the first batch of the fifth
    with pytest.raises(KilledProcessError):
        match_pairs(model, images, texts, ALL, **options)
    assert [len(part) for part in read_shards(tmp_path / "m")] == [4, 2, 4, 2, 4, 2, 4, 2, 4]
    calls, limit = [], None
    assert_close(match_pairs(model, images, texts, ALL, **options), expected, atol=1e-5, rtol=0)
    assert len(calls) == 1 + 2 * 2  # the rest of the fifth image, and two more
    assert_close(match_pairs(model, images, texts, ALL, **options), expected, atol=1e-5, rtol=0)
    assert len(calls) == 5
    with pytest.raises(ValueError, match="pairs="):
        match_pairs(model, images, texts, ALL[:-1], **options)


@pytest.mark.parametrize("k", [2, 100])
def test_retrieve_in_two_stages_on_disk_equals_in_memory(model, tmp_path, k):
    on_disk = retrieve_in_two_stages(model, tiny_processor(), IMAGES, TEXTS, k, 2, False, tmp_path)
    in_memory = retrieve_in_two_stages(model, tiny_processor(), IMAGES, TEXTS, k, progress=False)
    for ours, theirs in zip(on_disk, in_memory, strict=True):
        assert ours.rows.tolist() == theirs.rows.tolist()
        assert_close(ours.scores, theirs.scores, atol=1e-5, rtol=0)


def test_rerank_scores_equal_texts_alike(model):
    images, texts = (encoder(model, kind).encode(items) for kind, items in (("images", IMAGES), ("texts", TEXTS)))
    found = rerank(model, images, texts, k=len(TEXTS), progress=False)
    logits = torch.empty(len(IMAGES), len(TEXTS)).scatter_(1, found.texts_of_images.rows, found.texts_of_images.scores)
    assert_close(logits[:, 1], logits[:, 3], atol=1e-6, rtol=0)
    assert_close(found.images_of_texts.scores[1], found.images_of_texts.scores[3], atol=1e-6, rtol=0)


def test_shards_count_rows_and_completeness(tmp_path):
    shards = Shards(tmp_path, {"of": "numbers"})
    shards.append({"n": [1, 2]})
    shards.append({"n": [3]})
    assert shards.rows == Shards(tmp_path, {"of": "numbers"}).rows == 3 and not shards.complete
    shards.finish()
    assert Shards(tmp_path, {"of": "numbers"}).complete
    assert [row for part in read_shards(tmp_path) for row in part["n"]] == [1, 2, 3]


def test_read_shards_reads_several_batches(model, tmp_path):
    """`datasets` writes a shard's rows in batches of a thousand."""
    texts = (TEXTS * 400)[:2300]
    stored = store(tmp_path / "texts", model, items=texts, batch_size=256)
    (part,) = read_shards(tmp_path / "texts")
    assert part.data.column("embeds").num_chunks > 1
    encoded = encoder(model, "texts", batch_size=256).encode(texts)
    assert_close(torch.cat(stored.blocks), encoded.embeds)
    assert len(stored.states) == len(texts)
    for row in (0, 999, 1000, 1001, 2000, 2299):
        assert_close(stored.states[row], encoded.states[row])
    save_gallery(tmp_path / "again", json.loads((tmp_path / "texts" / "description.json").read_text()), stored)
    assert_close(torch.cat(StoredGallery(tmp_path / "again").blocks), encoded.embeds)
