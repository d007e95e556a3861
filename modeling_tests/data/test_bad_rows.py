"""Images that cannot be read: errors name their row, and skip_bad_rows leaves it out and counts it."""

import io
import json
import struct
import zlib
from itertools import islice

import datasets
import pytest
import torch
from PIL import Image
from source_forms import picture, samples, tar, write
from torch.utils.data import DataLoader

from transformers_cbvila.data.images import read_image
from transformers_cbvila.data.measured_pairs import MeasuredPairs
from transformers_cbvila.data.mixing import concatenate
from transformers_cbvila.data.pairs import ImageTextPairs
from transformers_cbvila.data.sources import load_pair_stream, load_pairs
from transformers_cbvila.data.streams import ReplayCollator, StreamedImageTextPairs
from transformers_cbvila.data.task_examples import CaptionedImages, ViewedRows
from transformers_cbvila.tasks.retrieval import ImageTextRetrieval
from transformers_cbvila.tasks.row_reading import load_task_rows


def _bomb():
    """A PNG of 300 million pixels, as its header says."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 20_000, 15_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def _cut():
    file = io.BytesIO()
    Image.effect_noise((200, 200), 50).save(file, "JPEG")
    return file.getvalue()[:3000]


BAD = {
    "cut": (_cut(), "its image cannot be read .*truncated"),
    "html": (b"<html>404</html>", "its image cannot be read .*begins with b'<html>404"),
    "empty": (b"", "it has no image"),
    "none": (None, "it has no image .None"),
    "bomb": (_bomb(), "its image cannot be read .DecompressionBombError"),
}
BAD_NAMES = {
    "missing": ("nowhere.png", "its image cannot be read .FileNotFoundError: .*nowhere.png"),
    "folder": ("folder", "its image cannot be read .*is not a file"),
    "data url": ("data:image/png;base64,zzz", "its image cannot be read"),
    "base64": ("A" * 400_000, "its image cannot be read"),
    "empty name": ("", "it has no image"),
}
READERS = {
    "pairs": lambda source: [ImageTextPairs(concatenate([load_pairs(source)]))[i] for i in range(4)],
    "stream": lambda source: list(islice(StreamedImageTextPairs(load_pair_stream(source), shuffle_buffer=0), 4)),
    "task": lambda source: list(load_task_rows(ImageTextRetrieval(), [source], "train")),
    "inspection": lambda source: list(MeasuredPairs(load_pairs(source))),
}


def parquet(folder, *bad, good=3):
    """Rows 0, 2 and 3 are good; row 1 and those behind them are bad."""
    images = [picture("red"), *bad[:1], *[picture("blue")] * (good - 1), *bad[1:]]
    rows = {"image": images, "caption": [f"caption {i}" for i in range(len(images))]}
    features = datasets.Features(image=datasets.Value("binary"), caption=datasets.Value("string"))
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "rows.parquet")
    return str(folder / "rows.parquet")


def named(folder, name):
    (folder / "folder").mkdir()
    write(folder / "red.png", picture("red"))
    lines = [{"image": image, "caption": "a"} for image in ("red.png", name, "red.png", "red.png")]
    return write(folder / "rows.jsonl", "\n".join(map(json.dumps, lines)))


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("kind", [*BAD, *BAD_NAMES])
def test_bad_row_error_names_source_and_row(kind, read, tmp_path):
    content, reason = (BAD | BAD_NAMES)[kind]
    source = parquet(tmp_path, content) if kind in BAD else named(tmp_path, content)
    with pytest.raises(ValueError, match=f"^Row 1 of {source}.*: {reason}.*skip_bad_rows") as caught:
        read(source)
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value) and " at 0x" not in str(caught.value)


def test_bad_row_error_names_the_key_of_a_tar_sample(tmp_path):
    members = dict(samples())
    members["001.png"] = b"no picture"
    source = tar(tmp_path / "a.tar", members.items())
    for read in READERS.values():
        with pytest.raises(ValueError, match=f"^Sample '001' of {source}.*: its image cannot be read"):
            read(source)


def test_bad_row_error_in_a_stream_of_files_quotes_the_row(tmp_path):
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        parquet(tmp_path / str(number), b"x")
    pairs = StreamedImageTextPairs(load_pair_stream(f"{tmp_path}/*/rows.parquet"), shuffle_buffer=0)
    with pytest.raises(
        ValueError, match=r"^The row of .*rows.parquet with 'caption 1' \(number 1 of pass 0\): its image"
    ):
        list(islice(pairs, 4))


@pytest.mark.parametrize("rows", [ImageTextPairs, CaptionedImages, ViewedRows], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("image", [None, b"x", 7, "nowhere.png", [1, 2], {"path": None, "bytes": None}])
def test_bad_row_error_numbers_rows_from_python(rows, image):
    good = {"image": picture("red"), "captions": ["a"]}
    made = rows([good, {**good, "image": image}])
    assert made[0]["image"].mode == "RGB"
    with pytest.raises(ValueError, match="^Row 1: it"):
        made[1]


@pytest.mark.parametrize("column", ["captions", "caption", "text", "txt"])
def test_pairs_find_usual_caption_columns(column):
    row = {"image": Image.new("RGB", (4, 4)), column: "a"}
    for rows in ([row], datasets.Dataset.from_list([{**row, "image": {"bytes": picture("red"), "path": None}}])):
        assert ImageTextPairs(rows)[0]["text"] == "a"


def test_pairs_without_caption_column_name_the_option():
    row = {"image": picture("red"), "words": "a"}
    with pytest.raises(ValueError, match=r"The data set has the columns .*'words'.*load_pairs\(…, caption_column=…\)"):
        ImageTextPairs(datasets.Dataset.from_list([row]))
    with pytest.raises(ValueError, match=r"Row 0 has the columns .*'words'.*rename"):
        ImageTextPairs([row])[0]
    with pytest.raises(ValueError, match=r"Row 0 has no column 'image'; it has \['caption'\]"):
        ImageTextPairs([{"caption": "a"}])[0]


def test_read_picture_takes_every_form(tmp_path):
    path = write(tmp_path / "red.png", picture("red"))
    array = torch.zeros(3, 4, 4)
    array[0] = 1.0
    for value in (path, tmp_path / "red.png", picture("red"), {"bytes": None, "path": path}, array.numpy(), array):
        assert read_image(value).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("kind", BAD)
def test_skip_bad_rows_substitutes_another_row(kind, tmp_path):
    source = parquet(tmp_path, BAD[kind][0])
    pairs = ImageTextPairs(concatenate([load_pairs(source)]), skip_bad_rows=True)
    seen = set()
    for epoch in range(30):
        pairs.set_epoch(epoch)
        texts = [pairs[row]["text"] for row in range(4)]
        assert texts[0] == "caption 0" and texts[2:] == ["caption 2", "caption 3"]
        seen.add(texts[1])
    assert seen == {"caption 0", "caption 2", "caption 3"}, "drawn again in every epoch"
    assert pairs.bad_rows == 1
    assert pairs.summary_of_bad_rows().startswith(f"Left out 1 bad row(s):\n  Row 1 of {source}: it")
    measured = MeasuredPairs(load_pairs(source), skip_bad_rows=True)
    assert [row["captions"] for row in measured] == [["caption 0"], ["caption 2"], ["caption 3"]]
    assert len(measured.skipped) == 1 and len(measured[1:]) == 2


def test_skip_bad_rows_substitute_depends_on_seed_epoch_and_row_only(tmp_path):
    rows = concatenate([load_pairs(parquet(tmp_path, b"x", b"y", b"z", good=20))])
    first, again = (ImageTextPairs(rows, skip_bad_rows=True) for _ in range(2))
    forward = [first[row]["text"] for row in range(len(rows))]
    assert [again[row]["text"] for row in reversed(range(len(rows)))] == forward[::-1]
    loader = DataLoader(ImageTextPairs(rows, skip_bad_rows=True), batch_size=4, num_workers=2, collate_fn=list)
    assert [example["text"] for batch in loader for example in batch] == forward
    assert loader.dataset.bad_rows == 3, "as workers have found them"
    assert [ImageTextPairs(rows, seed=1, skip_bad_rows=True)[row]["text"] for row in range(len(rows))] != forward


def stream(folder, bad=(1, 10, 11), **options):
    """A stream of twelve rows, of a .tar as `datasets` waits five seconds at the end of each pass over Parquet."""
    content = [b"x" if i in bad else picture("red") for i in range(12)]
    members = [m for i, c in enumerate(content) for m in ((f"{i:02}.png", c), (f"{i:02}.txt", f"caption {i}"))]
    rows = load_pair_stream(tar(folder / "rows.tar", members))
    return StreamedImageTextPairs(rows, **({"skip_bad_rows": True, "keyword_probability": 0.0} | options))


def test_skip_bad_rows_in_a_stream_takes_the_next_row(tmp_path, logged):
    pairs = stream(tmp_path, shuffle_buffer=0)
    texts = [example["text"] for example in islice(pairs, 24)]
    numbers = [0, 2, *range(2, 10), 0, 0]
    assert texts == [f"caption {number}" for number in numbers * 2]
    assert pairs.bad_rows == 6 and logged.text.count("Another row takes its place.") == 5, "the first five are named"
    assert "Sample '01' of " in logged.text and "6 time(s)" in pairs.summary_of_bad_rows()
    assert len(list(pairs.sample(0))) == 9


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("replayed", [1, 4, 9])
def test_skip_bad_rows_replay_ends_where_the_run_was(workers, replayed, tmp_path):
    def batches(pairs):
        collate = ReplayCollator(lambda examples: {"text": [example["text"] for example in examples]})
        loader = DataLoader(pairs, batch_size=2, num_workers=workers, collate_fn=collate)
        return [batch.get("text") for batch in islice(loader, 15)]

    options = {"shuffle_buffer": 5, "seed": 3}
    whole, pairs = batches(stream(tmp_path, **options)), stream(tmp_path, **options)
    pairs.start_after(replayed, 2)
    assert batches(pairs) == [None] * replayed + whole[replayed:]


def test_skip_bad_rows_rejects_data_of_bad_rows_only(tmp_path):
    source = parquet(tmp_path, *[b"x"] * 6, good=0)
    rows = datasets.load_dataset("parquet", data_files=source, split="train").select(range(1, 6))
    rows.to_parquet(source)
    with pytest.raises(ValueError, match="5 rows that follow each other are all bad. Left out 5 bad row"):
        ImageTextPairs(concatenate([load_pairs(source)]), skip_bad_rows=True)[2]
    with pytest.raises(ValueError, match="None of the rows from this one on can be read: Sample"):
        next(iter(stream(tmp_path, bad=range(12))))
    with pytest.raises(ValueError, match="no row that can be used. Left out 5 bad"):
        MeasuredPairs(load_pairs(source), skip_bad_rows=True)
    with pytest.raises(ValueError, match="no row that can be used. Left out 5 bad"):
        load_task_rows(ImageTextRetrieval(skip_bad_rows=True), [source], "train")


def test_concatenate_counts_rows_without_caption(tmp_path, logged):
    source = write(tmp_path / "a.csv", "image,caption\na.png,x\na.png,\n")
    assert len(concatenate([load_pairs(source)])) == 1
    assert "1 of 2 rows have no caption and are left out" in logged.text
    with pytest.raises(ValueError, match=f"Row 1 of {source}: its image|Row 1 of {source}: it has no caption"):
        MeasuredPairs(load_pairs(source))[1]


NO_TEXTS = {"a list of numbers": [0.5, 1.5], "a record of other things": {"box": "a"}, "a list of lists": [["a"], [1]]}


@pytest.mark.parametrize("caption", NO_TEXTS.values(), ids=NO_TEXTS)
def test_skip_bad_rows_in_a_stream_counts_captions_that_are_no_text(caption, tmp_path, logged):
    write(tmp_path / "red.png", picture("red"))
    rows = [{"image": "red.png", "caption": value} for value in (["a"], caption, ["b"], ["c"])]
    files = [write(tmp_path / f"{i}.jsonl", json.dumps(row) + "\n") for i, row in enumerate(rows)]
    streams = [load_pair_stream(file, skip_bad_rows=True) for file in files]
    from_files = datasets.concatenate_datasets(streams)
    with pytest.raises(ValueError, match=f"Row 0 of {files[1]}: its caption .*skip_bad_rows"):
        list(islice(StreamedImageTextPairs(from_files, shuffle_buffer=0), 4))
    pairs = StreamedImageTextPairs(from_files, shuffle_buffer=0, skip_bad_rows=True)
    assert [example["text"] for example in islice(pairs, 4)] == ["a", "b", "b", "c"]
    assert pairs.bad_rows == 1 and f"Row 0 of {files[1]}: its caption" in logged.text


def test_missing_column_error_of_many_columns_is_short(tmp_path):
    row = {"image": "red.png", **{f"a_column_with_a_long_name_{i}": "a" for i in range(1000)}}
    source = write(tmp_path / "rows.jsonl", json.dumps(row) + "\n")
    settings = ImageTextRetrieval(caption_column="a_column_with_a_long_name_1", where=["nowhere=1"])
    for read in (load_pairs, lambda source: load_task_rows(settings, [source], "train")):
        with pytest.raises(ValueError, match="a_column_with_a_long_name_0, .*1,001 in all") as caught:
            read(source)
        assert len(str(caught.value)) < 1500
