"""Galleries that follow a folder of pictures: every state equals indexing the folder anew."""

import json
import os
import shutil
from functools import cache
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny import build, tiny_processor, tiny_rows
from torch.testing import assert_close

from transformers_cbvila import CBViLAForImageTextRetrieval, CBViLARetriever
from transformers_cbvila.retrieval import folder_gallery
from transformers_cbvila.retrieval.encoding import GalleryEncoder
from transformers_cbvila.retrieval.faiss_index import FaissIndex
from transformers_cbvila.retrieval.folder_gallery import stored_contents

PICTURES = [row["image"] for row in tiny_rows(12)]
TEXTS = ["left half red", "right", "top half blue ?"]
QUIET = {"progress": False, "batch_size": 2}


@cache
def model(seed):
    return build(CBViLAForImageTextRetrieval, seed=seed)


def retriever(seed=0):
    return CBViLARetriever(model(seed), tiny_processor())


@pytest.fixture
def folder(tmp_path):
    """Eight pictures, two of them in a folder of their own."""
    path = tmp_path / "pictures"
    (path / "sub").mkdir(parents=True)
    for number in range(8):
        save(path / ("sub" if number > 5 else "") / f"{number}.png", number)
    return path


@pytest.fixture
def encoded(monkeypatch):
    """How many pictures each pass of the model encoded."""
    sizes, encode = [], GalleryEncoder.encode_pixels

    def counted(self, pixel_values):
        sizes.append(len(pixel_values))
        return encode(self, pixel_values)

    monkeypatch.setattr(GalleryEncoder, "encode_pixels", counted)
    return sizes


def save(path, number):
    PICTURES[number].save(path)
    os.utime(path, ns=(number, 1000 + number))  # as far apart as files of different days, whatever the clock


def assert_like_anew(found, folder):
    """Names, metadata, embeddings and re-ranked search of an index are those of a fresh one in memory."""
    expected = retriever().index(folder, **QUIET)
    assert [file.relative_to(folder) for file in found.files] == [f.relative_to(folder) for f in expected.files]
    assert found.metadata == expected.metadata and len(found) == len(expected)
    for options in ({"rerank_k": 0}, {"rerank_k": 4}, {"rerank_k": 4, "filter": lambda row: row["file_name"] > "2"}):
        mine, other = (each.search(text=TEXTS, top_k=3, **options) for each in (found, expected))
        assert mine.indices.tolist() == other.indices.tolist()
        assert_close(mine.scores, other.scores, atol=1e-5, rtol=0)


def test_only_what_changed_is_encoded_again(folder, tmp_path, encoded):
    index = {"images": folder, "folder": tmp_path / "index", **QUIET}
    assert_like_anew(retriever().index(**index), folder)
    encoded.clear()
    changes = [
        (0, lambda: None),
        (1, lambda: save(folder / "new.png", 8)),
        (1, lambda: save(folder / "0.png", 9)),
        (0, lambda: (folder / "1.png").unlink()),
        (0, lambda: (folder / "2.png").rename(folder / "sub" / "moved.png")),
        (0, lambda: shutil.copy(folder / "3.png", folder / "copy.png")),
        (0, lambda: os.utime(folder / "4.png")),
        (3, lambda: [save(folder / f"more{number}.png", number) for number in (1, 10, 11)]),
    ]
    for new, change in changes:
        change()
        found = retriever().index(**index)
        assert sum(encoded) in (new, new - 1)  # what is gone may still be in its file
        assert_like_anew(found, folder)
        assert_like_anew(retriever().load(tmp_path / "index"), folder)
        encoded.clear()


class Killed(BaseException):
    """What nobody catches."""


@pytest.mark.parametrize(
    "where, passes",
    [("encoding", 0), ("encoding", 1), ("encoding", 3)]
    + [("writing names", 0), ("writing names", 2), ("writing names", 4), ("finishing", 0), ("finishing", 1)],
)
def test_killed_at_any_point_the_same_call_goes_on(folder, tmp_path, monkeypatch, encoded, passes, where):
    index = {"images": folder, "folder": tmp_path / "index", "shard_bytes": 1, **QUIET}
    objects = {"encoding": GalleryEncoder, "writing names": folder_gallery, "finishing": folder_gallery}
    names = {"encoding": "encode_pixels", "writing names": "append_entries", "finishing": "write_entries"}
    original, calls = getattr(objects[where], names[where]), []

    def killing(*args):
        calls.append(args)
        if len(calls) > passes:
            raise Killed
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(objects[where], names[where], killing)
        with pytest.raises(Killed):
            retriever().index(**index)
        with pytest.raises(ValueError, match="isn't complete"):
            retriever().load(tmp_path / "index")
    assert_like_anew(retriever().index(**index), folder)
    assert sum(encoded[:-4]) == 8, "no picture is encoded twice; the last four passes are of the fresh index"


def test_names_that_a_killed_run_cut_are_left_out(folder, tmp_path, encoded):
    index = {"images": folder, "folder": tmp_path / "index", **QUIET}
    retriever().index(**index)
    items, description = tmp_path / "index" / "items.jsonl", tmp_path / "index" / "description.json"
    items.write_text(items.read_text()[:-30])
    description.write_text(json.dumps({**json.loads(description.read_text()), "complete": False}))
    encoded.clear()
    found = retriever().index(**index)
    assert encoded == []
    assert_like_anew(found, folder)


def test_pictures_that_cannot_be_read_are_left_out_and_named(folder, tmp_path, logged, monkeypatch):
    (folder / "empty.png").write_bytes(b"")
    (folder / "page.jpg").write_text("<html>404</html>")
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:60])
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "nowhere.png").symlink_to(tmp_path / "missing.png")
    (folder / "linked.png").symlink_to(folder / "0.png")
    (folder / "linked folder").symlink_to(folder / "sub")
    broken = {"empty.png", "page.jpg", "cut.png"}
    for options in ({}, {"folder": tmp_path / "index"}, {"folder": tmp_path / "index"}):
        found = retriever().index(folder, **options, **QUIET)
        assert {path.name for path in found.left_out} == broken
        assert all(len(reason) > 10 for reason in found.left_out.values())
        assert len(found) == len(found.files) == 9 and not broken & {file.name for file in found.files}
        (said,) = logged("folder_gallery")
        assert said.startswith("3 of the pictures of") and all(name in said for name in broken)
        logged.clear()
    save(folder / "cut.png", 9)
    with monkeypatch.context() as patch:
        patch.setattr(folder_gallery, "encode_pictures", spy := Spy(folder_gallery.encode_pictures))
        found = retriever().index(folder, folder=tmp_path / "index", **QUIET)
    assert [picture.file_name for picture in spy.pictures] == ["cut.png"], "what is unchanged is not read again"
    assert {path.name for path in found.left_out} == broken - {"cut.png"} == {p.name for p in again(tmp_path).left_out}


class Spy:
    """Remembers which pictures were to be encoded."""

    def __init__(self, function):
        self.function = function

    def __call__(self, folder, pictures, *others):
        self.pictures = pictures
        return self.function(folder, pictures, *others)


def again(tmp_path):
    return retriever().load(tmp_path / "index")


def test_a_file_that_cannot_be_opened_is_tried_again(folder, tmp_path, monkeypatch):
    read = Path.read_bytes

    def forbidding(path):
        if path.name == "0.png":
            raise PermissionError(13, "Permission denied")
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", forbidding)
        found = retriever().index(folder, folder=tmp_path / "index", **QUIET)
    assert found.left_out == {folder / "0.png": "Permission denied"} and len(found) == 7
    assert_like_anew(retriever().index(folder, folder=tmp_path / "index", **QUIET), folder)


def test_a_folder_of_nothing_readable_is_refused(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"")
    for options in ({}, {"folder": tmp_path / "index"}):
        with pytest.raises(ValueError, match=r"None of the 1 pictures of .* can be read, such as a\.png: the image"):
            retriever().index(tmp_path / "pictures", **options, **QUIET)


def test_an_index_is_of_one_folder_which_may_move(folder, tmp_path, encoded):
    index = retriever().index(folder, folder=tmp_path / "index", **QUIET)
    other = tmp_path / "other"
    other.mkdir()
    save(other / "a.png", 0)
    with pytest.raises(ValueError, match=r"index is the index of .*pictures.*, and these pictures are in .*other"):
        retriever().index(other, folder=tmp_path / "index", **QUIET)
    with pytest.raises(ValueError, match=r"was written with weights="):
        retriever(seed=1).index(folder, folder=tmp_path / "index", **QUIET)
    with pytest.raises(ValueError, match="was written with content="):
        retriever().index(index.files, folder=tmp_path / "index", **QUIET)
    moved = folder.rename(tmp_path / "moved")
    encoded.clear()
    found = retriever().index(moved, folder=tmp_path / "index", **QUIET)
    assert encoded == [] and found.files[0] == moved / "0.png" == again(tmp_path).files[0]


def test_files_of_mostly_gone_pictures_are_written_anew(folder, tmp_path):
    index = {"images": folder, "folder": tmp_path / "index", "shard_bytes": 1, **QUIET, "batch_size": 4}
    retriever().index(**index)
    assert len(stored_contents(tmp_path / "index")) == 8
    for number in (0, 1, 2, 4):
        (folder / f"{number}.png").unlink()
    assert_like_anew(retriever().index(**index), folder)
    assert len(stored_contents(tmp_path / "index")) == 5, "one of the first file is left, and the second one is kept"
    for number in range(8, 12):
        save(folder / f"{number}.png", number)
    (folder / "3.png").unlink()
    assert_like_anew(retriever().index(**index), folder)


def test_metadata_are_those_of_the_folder_and_stay_with_the_index(folder, tmp_path, encoded):
    lines = [{"file_name": "0.png", "year": 2020, "tags": ["a"]}, {"file_name": "sub/6.png", "year": None}]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "sub" / "metadata.csv").write_text("file_name,place\n7.png,01\ngone.png,02\n")
    found = retriever().index(folder, folder=tmp_path / "index", **QUIET)
    assert found.metadata[0] == {"file_name": "0.png", "year": 2020, "tags": ["a"]}
    assert found.metadata[1] == {"file_name": "1.png"}
    assert found.metadata[7] == {"file_name": "sub/7.png", "place": "01"}
    assert_like_anew(found, folder)
    found.save(tmp_path / "copy")
    in_memory = retriever().index(folder, **QUIET)
    in_memory.save(tmp_path / "saved")
    for name in ("index", "copy", "saved"):
        assert_like_anew(retriever().load(tmp_path / name), folder)
    encoded.clear()
    given = [{"file_name": "sub/7.png", "place": "02"}]
    found = retriever().index(folder, folder=tmp_path / "index", metadata=given, **QUIET)
    assert encoded == [] and found.metadata == again(tmp_path).metadata
    assert found.metadata[7]["place"] == "02" and found.metadata[0] == {"file_name": "0.png"}


@pytest.mark.parametrize(
    "metadata, message",
    [
        ([{"name": "a"}], r"metadata\[0\] has no file_name, which says whose it is; it has \['name'\]"),
        ([{"file_name": "x.png"}], r"metadata\[0\] is of 'x.png', and the folder has no picture of that name"),
        ({"file_name": "0.png"}, "metadata is a dictionary"),
        ([{"file_name": "0.png", "image": Image.new("RGB", (1, 1))}], r"metadata\[0\] cannot be stored as JSON"),
    ],
)
def test_metadata_of_a_folder_that_are_no_rows_are_named(folder, metadata, message):
    with pytest.raises(ValueError, match=message):
        retriever().index(folder, metadata=metadata, **QUIET)


def test_a_metadata_file_that_cannot_be_read_is_named(folder):
    for content in ("", "{"):
        (folder / "metadata.jsonl").write_text(content)
        with pytest.raises(ValueError, match=r"metadata\.jsonl cannot be read: \w+"):
            retriever().index(folder, **QUIET)


def test_a_faiss_index_goes_when_the_pictures_change(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(FaissIndex, "write", lambda self, file: file.write_bytes(b""))
    monkeypatch.setattr(FaissIndex, "read", lambda file: FaissIndex(None))
    index = {"images": folder, "folder": tmp_path / "index", **QUIET}
    found = retriever().index(**index)
    found._faiss = FaissIndex(None)
    found.save(tmp_path / "index")
    retriever().index(**index)
    assert (tmp_path / "index" / "index.faiss").exists()
    (folder / "0.png").unlink()
    retriever().index(**index)
    assert not (tmp_path / "index" / "index.faiss").exists()


def test_names_that_are_no_utf8_are_kept(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    try:
        PICTURES[0].save(folder / os.fsdecode(b"\xff.png"))
    except (OSError, UnicodeEncodeError):
        pytest.skip("this file system has no such names")
    found = retriever().index(folder, folder=tmp_path / "index", **QUIET)
    assert again(tmp_path).files == found.files and found.files[0].exists()


def test_without_states_a_folder_is_searched_by_similarity(folder, tmp_path):
    found = retriever().index(folder, folder=tmp_path / "index", keep_states=False, **QUIET)
    expected = retriever().index(folder, **QUIET).search(text=TEXTS, rerank_k=0)
    assert torch.equal(found.search(text=TEXTS).indices, expected.indices)
