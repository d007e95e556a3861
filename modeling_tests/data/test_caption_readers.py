"""Pretraining, streams, inspection and retrieval read captioned images alike."""

import datasets
import pytest
from source_forms import COLOURS, FORMS, picture, write

from transformers_cbvila.cli import inspect
from transformers_cbvila.data.column_names import CAPTION_COLUMNS
from transformers_cbvila.data.mixing import concatenate
from transformers_cbvila.data.pairs import ImageTextPairs
from transformers_cbvila.data.sources import load_pair_stream, load_pairs
from transformers_cbvila.data.streams import StreamedImageTextPairs
from transformers_cbvila.tasks.retrieval import ImageTextRetrieval
from transformers_cbvila.tasks.row_reading import load_task_rows


def read_pairs(source, split="train", image="image", caption=None, skip=False):
    pairs = ImageTextPairs(concatenate([load_pairs(source, split, image, caption, skip_bad_rows=skip)]))
    return map(pairs.row, range(len(pairs)))


def read_stream(source, split="train", image="image", caption=None, skip=False):
    rows = load_pair_stream(source, split, image, caption, skip_bad_rows=skip)
    return drawn(StreamedImageTextPairs(rows, shuffle_buffer=0, skip_bad_rows=skip))


def drawn(pairs):
    """The rows of one pass of a stream, their images decoded."""
    for number, row in enumerate(pairs._pass(0, 0, 0, 1)):
        try:
            yield pairs._readable(row, (0, 0, number))
        except ValueError:
            if not pairs.skip_bad_rows:
                raise


def read_inspected(source, split="train", image="image", caption=None, skip=False):
    argv = ["model", "--data", str(source), "--split", split, "--image_column", image]
    argv += ["--caption_column", caption] if caption else []
    return inspect._load(inspect.parse([*argv, *(["--skip_bad_rows"] if skip else [])])[0])[1]


def read_task(source, split="train", image="image", caption=None, skip=False):
    task = ImageTextRetrieval(image_column=[image], caption_column=caption, skip_bad_rows=skip)
    return load_task_rows(task, [source], split)


READERS = {"pairs": read_pairs, "stream": read_stream, "inspect": read_inspected, "retrieval": read_task}


def found(rows):
    """What tells rows apart, in their order: captions, and the image's size and a pixel."""
    return [(row["captions"], row["image"].size, row["image"].getpixel((8, 8))) for row in rows]


def parquet(folder, **columns):
    file = folder / "rows.parquet"
    datasets.Dataset.from_dict({"image": [picture(colour) for colour in COLOURS], **columns}).to_parquet(file)
    return str(file)


@pytest.mark.parametrize("form", FORMS)
def test_caption_readers_read_every_form_alike(form, tmp_path):
    source = FORMS[form](tmp_path)
    rows = {name: found(read(source)) for name, read in READERS.items()}
    assert len(rows["pairs"]) == len(COLOURS)
    assert rows["pairs"] == rows["stream"] == rows["inspect"] == rows["retrieval"]


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("place", range(len(CAPTION_COLUMNS)))
def test_caption_readers_find_columns_in_one_order(place, read, tmp_path):
    values = {name: [f"{name} {colour}" for colour in COLOURS] for name in reversed(CAPTION_COLUMNS[place:])}
    first = CAPTION_COLUMNS[place]
    assert [row["captions"] for row in read(parquet(tmp_path, **values))] == [[f"{first} {c}"] for c in COLOURS]
    last = CAPTION_COLUMNS[-1]
    assert [row["captions"] for row in read(parquet(tmp_path, **values), caption=last)] == [
        [f"{last} {c}"] for c in COLOURS
    ]


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_caption_readers_name_missing_columns_alike(read, tmp_path):
    source = parquet(tmp_path, words=["a"] * 4)
    usual = "captions, caption, text, txt, sentences_raw, sentences"
    with pytest.raises(
        ValueError, match=f"^{source} has no column called {usual}; set caption_column to one of image, words"
    ):
        list(read(source))
    with pytest.raises(ValueError, match=f"^{source} has no column 'title'; set caption_column to one of image, word"):
        list(read(source, caption="title"))
    with pytest.raises(ValueError, match=f"^{source} has no column 'photo'; set image_column to one of image, words"):
        list(read(source, image="photo", caption="words"))


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("content", [b"", b"<html>", picture("red")[:40]], ids=["empty", "html", "cut"])
def test_caption_readers_treat_broken_images_alike(content, read, tmp_path):
    source = FORMS["csv"](tmp_path)
    write(tmp_path / "img" / "green.png", content)
    with pytest.raises(ValueError, match=f"^Row 1 of {source}( .number 1 of pass 0.)?: its image cannot be read"):
        list(read(source))
    if read is not read_pairs:  # in which another row takes its place
        assert [row["captions"] for row in read(source, skip=True)] == [["a red"], ["a blue"], ["a black"]]


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_caption_readers_name_captions_that_are_no_text_alike(read, tmp_path):
    source = parquet(tmp_path, caption=[{"a": colour} for colour in COLOURS])
    with pytest.raises(ValueError, match=f"^Row 0 of {source}: its caption in column 'caption' is a record of"):
        list(read(source))


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_caption_readers_read_splits_alike(read, tmp_path):
    for split, colours in (("train", COLOURS), ("validation", COLOURS[:2])):
        for colour in colours:
            write(tmp_path / split / f"{colour}.png", picture(colour))
            write(tmp_path / split / f"{colour}.txt", f"a {colour}\na square")
    captions = [row["captions"] for row in read(str(tmp_path), "validation")]
    assert sorted(captions) == [["a green", "a square"], ["a red", "a square"]]


def test_inspect_reads_several_sources_on_the_split_that_all_have(tmp_path):
    (tmp_path / "b").mkdir()
    second = parquet(tmp_path / "b", text=[["one", "more"]] * 4)
    argv = ["model", "--data", FORMS["csv"](tmp_path / "a"), second, "easy-vqa"]
    split, rows = inspect._load(inspect.parse(argv)[0])
    assert split == "test" and len(rows) == 4 + 4 + 1000
    assert rows[0]["captions"] == ["a red"] and rows[5]["captions"] == ["one", "more"]
    assert rows[8]["image"].size == (64, 64)
