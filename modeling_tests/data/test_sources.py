"""Image-caption data in every form, as a whole and as a stream."""

import base64
import json

import datasets
import pytest
from PIL import Image, ImageColor

from transformers_cbvila.data.images import read_image, undecoded
from transformers_cbvila.data.mixing import concatenate, interleave
from transformers_cbvila.data.pair_reader import pair_features
from transformers_cbvila.data.pairs import ImageTextPairs
from transformers_cbvila.data.source_rows import split_as_read, usual_split
from transformers_cbvila.data.sources import load_pair_stream, load_pairs
from transformers_cbvila.data.streams import StreamedImageTextPairs
from transformers_cbvila.data.training_texts import training_texts
from transformers_cbvila.training.pretrain import PretrainingJob

COLOURS = ["red", "green", "blue", "black", "white", "yellow"]


def save_pictures(folder):
    folder.mkdir(parents=True)
    for colour in COLOURS:
        Image.new("RGB", (6, 4), colour).save(folder / f"{colour}.png")
    return folder


def table(column="caption", several=False, folder=None):
    captions = [[f"a {c}", f"{c} b"] if several else f"a {c}" for c in COLOURS]
    images = [str(folder / f"{c}.png") for c in COLOURS]
    rows = datasets.Dataset.from_dict({"image": images, column: captions, "tags": [[c] for c in COLOURS]})
    return rows.cast_column("image", datasets.Image())


def make(kind, folder):
    """A source of that kind in a folder, as `train_data` names it."""
    pictures = save_pictures(folder / "pictures")
    rows = table(folder=pictures)
    if kind == "image folder":
        lines = [{"file_name": f"{c}.png", "caption": f"a {c}", "tags": [c]} for c in COLOURS]
        (pictures / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
        return str(pictures)
    if kind == "image folder with csv":
        lines = ["file_name,caption", *(f"{c}.png,a {c}" for c in COLOURS)]
        (pictures / "metadata.csv").write_text("\n".join(lines))
        return str(pictures)
    if kind == "jsonl":
        lines = [{"image": f"pictures/{c}.png", "caption": f"a {c}", "tags": [c]} for c in COLOURS]
        (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
        return str(folder / "pairs.jsonl")
    if kind == "save_to_disk":
        rows.save_to_disk(folder / "disk")
        return str(folder / "disk")
    if kind == "save_to_disk of a dict":
        datasets.DatasetDict(train=rows).save_to_disk(folder / "disk")
        return str(folder / "disk")
    (folder / "parquet").mkdir()
    for shard in range(2):
        part = rows.shard(2, shard, contiguous=True)
        part.to_parquet(folder / "parquet" / f"train-{shard}.parquet")
    return {
        "parquet file": str(folder / "parquet" / "train-0.parquet"),
        "parquet pattern": str(folder / "parquet" / "train-*.parquet"),
        "parquet folder": str(folder / "parquet"),
    }[kind]


KINDS = [
    "image folder",
    "image folder with csv",
    "jsonl",
    "save_to_disk",
    "save_to_disk of a dict",
    "parquet file",
    "parquet pattern",
    "parquet folder",
]


def decoded(row):
    image = row["image"]
    return image if isinstance(image, Image.Image) else datasets.Image(mode="RGB").decode_example(image)


@pytest.mark.parametrize("load", [load_pairs, load_pair_stream])
@pytest.mark.parametrize("kind", KINDS)
def test_loaders_give_the_same_rows_for_every_source(kind, load, tmp_path):
    rows = list(load(make(kind, tmp_path), keyword_columns=["missing", "tags"]))
    assert [row["captions"] for row in rows] == [[f"a {c}"] for c in COLOURS][: len(rows)]
    assert len(rows) == (3 if kind == "parquet file" else 6)
    for colour, row in zip(COLOURS, rows, strict=False):
        assert set(row) == {"image", "captions", "keywords", "negative_captions", "origin"}
        assert row["keywords"] == ([] if "csv" in kind else [colour])
        assert decoded(row).getpixel((2, 2)) == Image.new("RGB", (1, 1), colour).getpixel((0, 0))


@pytest.mark.parametrize("load", [load_pairs, load_pair_stream])
@pytest.mark.parametrize("column", ["captions", "caption", "text"])
def test_loaders_find_usual_caption_columns(column, load, tmp_path):
    rows = table(column, several=column == "captions", folder=save_pictures(tmp_path / "p"))
    rows.add_column("title", ["t"] * 6).to_parquet(tmp_path / "a.parquet")
    found = next(iter(load(str(tmp_path / "a.parquet"))))
    assert found["captions"] == (["a red", "red b"] if column == "captions" else ["a red"])
    assert next(iter(load(str(tmp_path / "a.parquet"), caption_column="title")))["captions"] == ["t"]


@pytest.mark.parametrize("load", [load_pairs, load_pair_stream])
def test_a_folder_of_pictures_alone_is_told_what_it_lacks(load, tmp_path):
    save_pictures(tmp_path / "p")
    with pytest.raises(
        ValueError, match=r"p has pictures alone, and no column called .*: put a metadata.jsonl into it"
    ):
        load(str(tmp_path / "p"))


@pytest.mark.parametrize("load", [load_pairs, load_pair_stream])
def test_loaders_name_missing_columns(load, tmp_path):
    table("words", folder=save_pictures(tmp_path / "p")).to_parquet(tmp_path / "a.parquet")
    path = str(tmp_path / "a.parquet")
    with pytest.raises(
        ValueError, match="no column called captions, caption, text, .*; set caption_column to one of im"
    ):
        load(path)
    with pytest.raises(ValueError, match="no column 'caption'; set caption_column to one of image, words, tags"):
        load(path, caption_column="caption")
    with pytest.raises(ValueError, match="no column 'photo'; set image_column to one of image, words, tags"):
        load(path, image_column="photo", caption_column="words")


@pytest.mark.parametrize("source", ["nowhere/at/all", "./nowhere", "nowhere.parquet", "data/*.jsonl"])
def test_load_pairs_rejects_missing_paths(source):
    with pytest.raises(FileNotFoundError, match="isn't there"):
        load_pairs(source)


def folder_with_splits(folder, *splits):
    for split in splits:
        table(folder=save_pictures(folder / f"pictures-{split}")).to_parquet(folder / "data" / f"{split}-0.parquet")
    return str(folder / "data")


@pytest.mark.parametrize(
    ("splits", "preferred", "chosen"),
    [
        (["train", "validation", "test"], ("test", "validation"), "test"),
        (["train", "validation", "test"], ("validation", "test"), "validation"),
        (["train", "validation"], ("test", "validation"), "validation"),
        (["train"], ("test", "validation"), "train"),
    ],
)
def test_usual_split_is_the_preferred_or_only_one(splits, preferred, chosen, tmp_path):
    source = folder_with_splits(tmp_path, *splits)
    assert usual_split([source], preferred) == chosen
    rows = datasets.DatasetDict({split: table(folder=tmp_path / f"pictures-{split}") for split in splits})
    rows.save_to_disk(tmp_path / "disk")
    assert usual_split([str(tmp_path / "disk")], preferred) == chosen


def test_usual_split_is_common_to_all_sources(tmp_path):
    both = folder_with_splits(tmp_path / "both", "train", "validation", "test")
    one = folder_with_splits(tmp_path / "one", "train", "validation")
    file = str(tmp_path / "one" / "data" / "train-0.parquet")
    assert usual_split([both, one]) == "validation" == usual_split([file, one])
    assert usual_split([file]) == "test" == usual_split(["easy-vqa", both, file]), "files go by any name"
    assert len(load_pairs(file, usual_split([file]))) == 6
    table(folder=tmp_path / "one" / "pictures-train").save_to_disk(tmp_path / "rows")
    assert usual_split([str(tmp_path / "rows"), one]) == "validation"


def test_split_as_read_names_splits_that_there_are(tmp_path):
    one = folder_with_splits(tmp_path / "one", "train")
    file = str(tmp_path / "one" / "data" / "train-0.parquet")
    assert [split_as_read([file], split) for split in ("test", "test[:3]")] == ["all", "all[:3]"]
    assert split_as_read([one], "train") == split_as_read([file, one], "train") == "train"
    assert split_as_read(["easy-vqa"], "test") == "test"


def test_usual_split_rejects_ambiguous_splits(tmp_path):
    rows = table(folder=save_pictures(tmp_path / "pictures"))
    for folder, splits in (("several", ("train", "extra")), ("one", ("extra",))):
        datasets.DatasetDict(dict.fromkeys(splits, rows)).save_to_disk(tmp_path / folder)
    with pytest.raises(ValueError, match="no split test or validation: .*several has train, extra. Name one as"):
        usual_split([str(tmp_path / "several")])
    with pytest.raises(ValueError, match="easy-vqa has train, test; .*one has extra. Name one as the split"):
        usual_split(["easy-vqa", str(tmp_path / "one")])
    for nowhere in ("./nowhere", "nowhere.parquet"):
        with pytest.raises(FileNotFoundError, match="nowhere.* isn't there"):
            usual_split([nowhere])


def test_loaders_name_a_missing_split_and_its_source(tmp_path):
    source = folder_with_splits(tmp_path, "train")
    for load in (load_pairs, load_pair_stream):
        with pytest.raises(
            ValueError, match=r"data .split dev. cannot be read: (Unknown|Bad) split.*dev.*\['train'\]"
        ):
            load(source, "dev")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "has no rows"),
        ("a.csv", b"", "mpty|No columns|no rows"),
        ("a.csv", b"image,text\n", "has no rows"),
        ("a.json", b"[]", "has no rows"),
        ("a.jsonl", b'{"image": "a.png", "text": "x"}\n{"image": "a.png", "te\n', "row 1"),
        ("a.csv", b"image,text\na.png,x\na.png,x,y\n", "line 3"),
        ("a.csv", "image,text\na.png,caf\xe9\n".encode("latin-1"), "utf-8"),
    ],
)
def test_load_pairs_names_empty_or_broken_files(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"^{tmp_path / name} \(split test\) cannot be read: .*({message})"
    ) as caught:
        load_pairs(str(tmp_path / name), "test")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, 2], "holds int64; expected images, paths or the bytes"),
        ([["a.png"], ["b.png"]], "holds lists; expected an"),
    ],
)
def test_load_pairs_names_columns_without_images(values, message, tmp_path):
    datasets.Dataset.from_dict({"image": values, "text": ["a", "b"]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=f"Column 'image' of .*a.parquet {message}"):
        load_pairs(str(tmp_path / "a.parquet"))


def test_load_pairs_reads_image_bytes_and_records(tmp_path):
    data = [(save_pictures(tmp_path / "p") / f"{c}.png").read_bytes() for c in COLOURS[:1]]
    for number, values in enumerate((data, [{"bytes": data[0], "path": None}])):
        rows = datasets.Dataset.from_dict({"image": values, "text": ["a"]})
        rows.to_parquet(tmp_path / f"{number}.parquet")
        assert load_pairs(str(tmp_path / f"{number}.parquet"))[0]["image"].size == (6, 4)


def test_loaders_turn_missing_captions_into_empty_lists(tmp_path):
    rows = table(folder=save_pictures(tmp_path / "p")).remove_columns("caption")
    rows.add_column("caption", ["a", None, "b", None, "c", "d"]).to_parquet(tmp_path / "a.parquet")
    for load in (load_pairs, load_pair_stream):
        captions = [row["captions"] for row in load(str(tmp_path / "a.parquet"))]
        assert captions == [["a"], [], ["b"], [], ["c"], ["d"]]


def test_interleave_streams_keeps_captions_and_keywords(tmp_path):
    own = load_pair_stream(make("jsonl", tmp_path), keyword_columns=["tags"])
    captions = [row["captions"][0] for row in interleave([own.take(3), own])]
    first = [f"a {c}" for c in COLOURS]
    assert captions == [text for c in first[:3] for text in (c, c)] + first[3:], "in turn, and none twice"
    texts = list(training_texts([own], ["own"]))
    assert texts == [text for c in COLOURS for text in (f"a {c}", c)]
    assert len(list(training_texts([own], ["own"], stream_rows=2))) == 4
    whole = concatenate([load_pairs(make("parquet folder", tmp_path / "b"), keyword_columns=["tags"])])
    assert list(training_texts([whole], ["own"])) == texts


def numbered(start, count):
    features = pair_features()
    numbers = [str(start + i) for i in range(count)]
    texts = {"captions": [[n] for n in numbers], "keywords": [[]] * count, "negative_captions": [[]] * count}
    rows = {"image": [None] * count, **texts, "origin": numbers}
    return datasets.Dataset.from_dict(rows, features=features)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("weights, share", [([3, 1], 0.75), ([1.0, 9.0], 0.1)])
def test_source_weights_are_shares_whatever_the_size(streaming, weights, share):
    sources, mix = [numbered(0, 100), numbered(1000, 400)], concatenate
    if streaming:
        sources, mix = [source.to_iterable_dataset() for source in sources], interleave
    drawn = [
        [int(row["captions"][0]) for row in mix(sources, weights, seed).select_columns("captions")] for seed in (0, 1)
    ]
    for numbers in drawn:
        found = sum(number < 1000 for number in numbers) / len(numbers)
        assert found == pytest.approx(share, abs=5 * (share * (1 - share) / len(numbers)) ** 0.5)
        assert set(numbers) == {*range(100), *range(1000, 1400)}, "a pass ends when every row has come"
    assert drawn[0] != drawn[1]
    one = mix(sources[:1], [2.0])
    assert [int(row["captions"][0]) for row in one.select_columns("captions")] == list(range(100))


@pytest.mark.parametrize(
    "weights, message",
    [
        ([1.0], "1 weights for 2 source"),
        ([1.0, 0.0], r"Weights \[1.0, 0.0\] must be above 0"),
        ([1, float("nan")], "above"),
    ],
)
def test_train_data_weights_that_do_not_fit_are_rejected(weights, message):
    with pytest.raises(ValueError, match=message):
        PretrainingJob(train_data=["a", "b"], train_data_weights=weights)


def test_concatenate_drops_rows_without_caption(tmp_path):
    rows = table(folder=save_pictures(tmp_path / "p")).remove_columns("caption")
    rows.add_column("caption", ["a", None, "b", None, "c", "d"]).to_parquet(tmp_path / "a.parquet")
    whole = concatenate([load_pairs(str(tmp_path / "a.parquet"))])
    assert whole["captions"] == [["a"], ["b"], ["c"], ["d"]]
    assert whole[1]["image"].getpixel((0, 0)) == Image.new("RGB", (1, 1), "blue").getpixel((0, 0))


def test_loaders_drop_blank_captions(tmp_path):
    rows = table(folder=save_pictures(tmp_path / "p")).remove_columns("caption")
    captions = [["a", ""], [" b "], ["  "], [None, "c"], [], None]
    rows.add_column("caption", captions, feature=datasets.List(datasets.Value("string"))).to_parquet(
        tmp_path / "a.parquet"
    )
    for load in (load_pairs, load_pair_stream):
        found = [row["captions"] for row in load(str(tmp_path / "a.parquet"))]
        assert found == [["a"], ["b"], [], ["c"], [], []]


@pytest.mark.parametrize("load", [load_pairs, load_pair_stream])
def test_loaders_composite_transparency_on_white(load, tmp_path):
    hidden = Image.new("RGBA", (8, 8), (10, 20, 30, 0))
    hidden.paste((200, 0, 0, 255), (0, 0, 8, 4))
    hidden.save(tmp_path / "a.png")
    (tmp_path / "pairs.jsonl").write_text('{"image": "a.png", "caption": "a"}\n')
    rows = load(str(tmp_path / "pairs.jsonl"))
    pairs = ImageTextPairs(rows) if load is load_pairs else StreamedImageTextPairs(rows)
    image = next(iter(pairs))["image"] if load is load_pair_stream else pairs[0]["image"]
    assert image.mode == "RGB"
    assert (image.getpixel((0, 0)), image.getpixel((0, 7))) == ((200, 0, 0), (255, 255, 255))


@pytest.mark.parametrize("kind", ["parquet", "save_to_disk"])
def test_relative_image_paths_count_from_their_folder(kind, tmp_path):
    save_pictures(tmp_path / "own" / "pictures")
    rows = datasets.Dataset.from_dict({"image": ["pictures/blue.png"], "caption": ["a"]})
    if kind == "parquet":
        rows.to_parquet(tmp_path / "own" / "train.parquet")
    else:
        rows.save_to_disk(tmp_path / "own")
    (row,) = load_pairs(str(tmp_path / "own"))
    assert row["image"].convert("RGB").getpixel((0, 0)) == (0, 0, 255)


def test_pairs_name_the_row_of_a_broken_picture(tmp_path):
    make("jsonl", tmp_path)
    rows = load_pairs(str(tmp_path / "pairs.jsonl"))
    next(tmp_path.rglob("*.png")).write_bytes(b"no picture")
    pairs = ImageTextPairs(rows)
    with pytest.raises(ValueError, match=r"Row \d of .*pairs.jsonl: its image cannot be read"):
        [pairs[row] for row in range(len(pairs))]
    with pytest.raises(IndexError):
        pairs[len(pairs)]


@pytest.mark.parametrize("load", [load_pairs, load_pair_stream])
def test_loaders_reject_relative_paths_of_several_folders(load, tmp_path):
    make("jsonl", tmp_path / "one")
    make("jsonl", tmp_path / "two")
    with pytest.raises(ValueError, match="the pattern has several"):
        next(iter(load(f"{tmp_path}/*/pairs.jsonl")))
    assert next(iter(load(f"{tmp_path}/one/*.jsonl")))["captions"] == ["a red"]


def test_load_pair_stream_reads_easy_vqa():
    rows = load_pair_stream("easy-vqa")
    first = next(iter(rows))
    assert decoded(first).size == (64, 64) and first["captions"] and first["keywords"] == []
    assert rows.num_shards == 64


@pytest.mark.parametrize("caption", [None, "", " ", []])
def test_concatenate_rejects_sources_without_captions(caption, tmp_path):
    lines = [{"image": f"{c}.png", "caption": caption} for c in COLOURS]
    path = save_pictures(tmp_path / "pictures") / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(ValueError, match=r"None of 6 rows has a caption \(Row 0 of .*a.jsonl is the first\)"):
        concatenate([load_pairs(str(path))])
    with pytest.raises(ValueError, match="The stream has no row with a caption and an image"):
        list(StreamedImageTextPairs(load_pair_stream(str(path))).sample(0))


@pytest.mark.parametrize("load", [load_pairs, load_pair_stream])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
@pytest.mark.parametrize("form", ["base64", "data URL", "file URL"])
def test_loaders_read_base64_and_path_images(form, name, load, tmp_path):
    save_pictures(tmp_path / "pictures")
    files = [tmp_path / "pictures" / f"{c}.png" for c in COLOURS]
    coded = [base64.b64encode(file.read_bytes()).decode() for file in files]
    texts = {
        "base64": coded,
        "data URL": [f"data:image/png;base64,{text}" for text in coded],
        "file URL": [file.as_uri() for file in files],
    }[form]
    rows = [{"image": text, "caption": "a"} for text in texts]
    lines = ["image,caption", *(f'"{t}",a' for t in texts)] if name == "a.csv" else list(map(json.dumps, rows))
    (tmp_path / name).write_text("\n".join(lines))
    images = [read_image(row["image"]) for row in undecoded(load(str(tmp_path / name)))]
    assert [image.getpixel((0, 0)) for image in images] == [ImageColor.getrgb(colour) for colour in COLOURS]


@pytest.mark.parametrize(("name", "meant"), [("scene", "; did you mean scenes?"), ("no-such-data", "")])
def test_a_name_that_is_neither_here_nor_on_the_hub_is_told_as_such(name, meant, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="cannot be read: ") as error:
        load_pairs(name, "train")
    assert str(error.value).endswith(f"; no file or folder here has this name{meant}")
