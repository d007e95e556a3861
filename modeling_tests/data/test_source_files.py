"""Data sources that are paths: every file form is read, and other files are named."""

from pathlib import Path

import pytest
from PIL import Image
from source_forms import CAPTIONS, COLOURS, FORMS, csv, described, pictures, tar, with_texts, write, zipped

from transformers_cbvila.data.images import read_image
from transformers_cbvila.data.source_files import find_source
from transformers_cbvila.data.source_rows import load_rows, usual_split
from transformers_cbvila.data.sources import load_pair_stream, load_pairs
from transformers_cbvila.tasks.retrieval import ImageTextRetrieval
from transformers_cbvila.tasks.row_reading import load_task_rows

LOADERS = [load_pairs, load_pair_stream]


def check(rows):
    """The rows are the four pairs, in any order."""
    found = {row["captions"][0]: read_image(row["image"]).getpixel((8, 8)) for row in rows}
    assert set(found) == CAPTIONS
    for colour in COLOURS:
        expected = Image.new("RGB", (1, 1), colour).getpixel((0, 0))
        assert max(abs(a - b) for a, b in zip(found[f"a {colour}"], expected, strict=True)) < 9, "JPEG is not exact"


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize("form", FORMS)
def test_loaders_read_every_file_form(form, load, tmp_path):
    check(load(FORMS[form](tmp_path)))


@pytest.mark.parametrize("form", ["tsv", "csv with brackets", "folder with brackets", "texts", "tar", "zip"])
def test_load_task_rows_reads_every_file_form(form, tmp_path):
    check(load_task_rows(ImageTextRetrieval(), [FORMS[form](tmp_path)], "train"))


@pytest.mark.parametrize("source", ["a.tsv", "./a.tsv", "~/a.tsv", Path("a.tsv")])
def test_find_source_prefers_files_of_the_current_folder(source, tmp_path, monkeypatch):
    FORMS["tsv"](tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    check(load_pairs(source))
    check(load_task_rows(ImageTextRetrieval(), [source], "train"))


@pytest.mark.parametrize("name", ["a.xyz", "captions.txt", "a.csv.old", "README"])
def test_load_pairs_rejects_files_of_other_kinds(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / name, "x")
    for source in (name, str(tmp_path / name)):
        with pytest.raises(ValueError, match=r"is there, but its ending is none of .*\.parquet.*\.tsv, \.tar"):
            load_pairs(source)


@pytest.mark.parametrize(
    "source", ["no.tsv", "no.tar", "NO.CSV", "no.csv.gz", "no[1]", "~/no", "a\\b.png", "x" * 5000, "no.zip", "no/*"]
)
def test_load_pairs_asks_no_hub_for_missing_paths(source):
    with pytest.raises(FileNotFoundError, match="isn't there: give a file") as caught:
        load_pairs(source)
    assert len(str(caught.value)) < 500


def test_find_source_leaves_hub_names_to_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_source("user/name") is None and find_source("user/name@refs/convert/parquet") is None
    described(tmp_path / "user" / "name")
    assert find_source("user/name").kind == "images", "a folder of that name is itself"


def test_load_pairs_rejects_folders_and_patterns_without_one_kind(tmp_path):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "odd" / "a.xyz", "x")
    for folder in ("empty", "odd"):
        with pytest.raises(ValueError, match="is a folder with no file that can be read; readable are .parquet"):
            load_pairs(str(tmp_path / folder))
    write(tmp_path / "a.csv", csv())
    write(tmp_path / "a.jsonl", "{}")
    with pytest.raises(ValueError, match=r"a\.\* names files of several kinds \(csv, json\)"):
        load_pairs(str(tmp_path / "a.*"))


@pytest.mark.parametrize("name, content", [("a.tar", b"x" * 600), ("a.zip", b"PK"), ("a.tar", b"")])
def test_loaders_name_broken_archives(name, content, tmp_path):
    for load in LOADERS:
        with pytest.raises(ValueError, match=f"{name}.*cannot be read"):
            list(load(write(tmp_path / name, content)))


def test_load_pairs_names_another_csv_delimiter(tmp_path):
    with pytest.raises(ValueError, match="no column 'image'.*seem to be divided by ';': divide them by commas"):
        load_pairs(write(tmp_path / "a.csv", csv(";")))


@pytest.mark.parametrize("form", [described, with_texts], ids=["described", "texts"])
@pytest.mark.parametrize("name", ["data", "br[1]"])
def test_load_rows_reads_splits_of_folders(form, name, tmp_path):
    for split in ("train", "validation"):
        form(tmp_path / name / split)
    source = str(tmp_path / name)
    assert usual_split([source]) == "validation"
    check(load_pairs(source, "validation"))
    assert len(load_rows(source, "train[:2]")) == 2 and len(load_rows(source, "train+validation")) == 8
    with pytest.raises(ValueError, match=r"split dev\) cannot be read: Unknown split.*train.*validation"):
        load_pairs(source, "dev")


def test_load_rows_reads_files_under_any_split(tmp_path):
    for form in ("tsv", "tar", "zip"):
        source = FORMS[form](tmp_path)
        assert usual_split([source]) == "test"
        check(load_pairs(source, "anything"))
        assert len(load_rows(source, "test[1:3]")) == 2


PARTS = ["train[:2]", "train[1:]", "train[1:3]", "train[:9]", "train[50%:]", "train[-1:]", "train+train[:1]"]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("form", FORMS)
def test_streams_of_a_part_of_a_split_have_the_rows_of_the_table(form, part, tmp_path):
    source = FORMS[form](tmp_path)
    rows, stream = load_pairs(source, part), load_pair_stream(source, part)
    assert [row["captions"] for row in stream] == [row["captions"] for row in rows]
    assert len(rows) == {"train[:9]": 4, "train[1:]": 3, "train[-1:]": 1, "train+train[:1]": 5}.get(part, len(rows))


def test_load_rows_reads_splits_of_archives(tmp_path):
    pictures_of = {split: pictures(tmp_path / split) for split in ("train", "test")}
    members = [
        (f"{split}/{c}{end}", (folder / f"{c}.png").read_bytes() if end == ".png" else f"a {c}")
        for split, folder in pictures_of.items()
        for c in COLOURS
        for end in (".png", ".txt")
    ]
    source = zipped(tmp_path / "a.zip", members)
    assert usual_split([source]) == "test"
    check(load_pairs(source, "test"))


def test_tar_columns_may_be_named_by_endings(tmp_path):
    members = [("a.png", (pictures(tmp_path) / "red.png").read_bytes()), ("a.txt", "one\n\n two "), ("a.cls", "7")]
    source = tar(tmp_path / "a.tar", members)
    for load in LOADERS:
        (row,) = load(source, image_column="png", caption_column="txt")
        assert row["captions"] == ["one", "two"] and row["origin"] == f"Sample 'a' of {source}"
        (row,) = load(source, caption_column="cls")
        assert row["captions"] == ["7"]


def test_tar_samples_with_two_pictures_keep_both(tmp_path):
    content = (pictures(tmp_path) / "red.png").read_bytes()
    source = tar(tmp_path / "a.tar", [("a.left.png", content), ("a.right.png", content), ("a.txt", "x")])
    assert {"left.png", "right.png", "txt"} < set(load_rows(source, "train").column_names)


def test_tar_that_changed_is_read_again(tmp_path):
    def captions(text):
        source = tar(tmp_path / "a.tar", [("a.png", (pictures(tmp_path) / "red.png").read_bytes()), ("a.txt", text)])
        return load_pairs(source)["captions"]

    assert captions("before") == [["before"]] and captions("after it") == [["after it"]]


def test_load_pair_stream_has_a_shard_per_tar(tmp_path):
    assert load_pair_stream(FORMS["pattern of tars"](tmp_path)).num_shards == 2
