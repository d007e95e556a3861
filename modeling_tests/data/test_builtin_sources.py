"""Built-in sources: the registry, options in their names, and a source defined here that every reader takes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import datasets
import pytest
from PIL import Image

from transformers_cbvila.data.builtin_options import parse_options
from transformers_cbvila.data.builtin_source import BuiltinSource
from transformers_cbvila.data.builtin_sources import BUILTIN_SOURCES, find_builtin
from transformers_cbvila.data.mixing import concatenate
from transformers_cbvila.data.pairs import ImageTextPairs
from transformers_cbvila.data.source_rows import load_rows, usual_split
from transformers_cbvila.data.sources import load_pair_stream, load_pairs
from transformers_cbvila.data.streams import StreamedImageTextPairs
from transformers_cbvila.data.training_texts import training_texts


@dataclass(frozen=True)
class SquareOptions:
    size: int = 8
    noise: float = 0.0
    outlined: bool = False
    style: Literal["flat", "striped"] = "flat"
    colours: tuple[str, ...] = ("red", "blue")
    seed: int | None = None

    def __post_init__(self):
        if self.size < 1:
            raise ValueError(f"size={self.size} must be at least 1.")


class Squares(BuiltinSource):
    """One image per colour, drawn when it is asked for."""

    splits = ("train", "validation")
    tasks = ("pretraining", "entailment")
    options_type = SquareOptions

    def rows(self, split, task, streaming=False):
        options = {"gen_kwargs": {"options": [self.options], "split": split, "task": task}}
        if streaming:
            return datasets.IterableDataset.from_generator(self._rows, features=self.features(task), **options)
        return datasets.Dataset.from_list(list(self._rows(**options["gen_kwargs"])), features=self.features(task))

    def texts(self, split):
        yield f"is it {split}"

    @staticmethod
    def features(task):
        text = datasets.Value("string")
        texts = {"captions": datasets.List(text)} if task == "pretraining" else {"hypothesis": text, "label": text}
        return datasets.Features(image=datasets.Image(), **texts)

    @staticmethod
    def _rows(options, split, task):
        (options,) = options
        for colour in options.colours:
            image = Image.new("RGB", (options.size, options.size), colour)
            texts = {"captions": [f"a {colour} square"]}
            yield {"image": image, **(texts if task == "pretraining" else {"hypothesis": colour, "label": "neutral"})}


@pytest.fixture
def squares(monkeypatch):
    monkeypatch.setitem(BUILTIN_SOURCES, "squares", Squares)


@pytest.mark.parametrize("name", list(BUILTIN_SOURCES))
def test_builtin_sources_have_rows_for_each_split_and_task(name):
    source = find_builtin(name)
    for split in source.splits:
        for task in source.tasks_of(split):
            row = next(iter(load_rows(name, split, streaming=True, task=task)))
            assert any(column in row for column in ("image", "left_image"))


def test_builtin_easy_vqa_has_captions_and_questions():
    assert load_rows("easy-vqa", "test").column_names == ["image", "captions", "image_id"]
    rows = load_rows("easy-vqa", "test", task="vqa")
    assert {"image", "image_id", "question", "answer"} <= set(rows.column_names) and len(rows) == 1000
    with pytest.raises(
        ValueError, match="^easy-vqa has no rows for entailment; it has rows for pretraining, retrieval, vqa"
    ):
        load_rows("easy-vqa", "test", task="entailment")
    with pytest.raises(ValueError, match=r"^easy-vqa \(split dev\) cannot be read: .*dev.*'train', 'test'"):
        load_pairs("easy-vqa", "dev")


def test_builtin_source_options_are_read_by_type():
    assert parse_options("squares", "", SquareOptions) == SquareOptions()
    text = "size=96, noise=0.5,outlined=true,style=striped,colours=red+green,seed=7"
    assert parse_options("squares", text, SquareOptions) == SquareOptions(
        96, 0.5, True, "striped", ("red", "green"), 7
    )
    assert parse_options("squares", "seed=none,outlined=False", SquareOptions) == SquareOptions()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "squares[sise=3]",
            "squares has no option 'sise'; its options are size, noise, outlined, style, .*; did you mean size",
        ),
        ("squares[3]", r"squares: option '3' has no value; expected squares\[key=value,key=value\]"),
        ("squares[size=3,size=4]", "squares: option size is given twice"),
        ("squares[size=large]", "squares: size='large' is not a whole number"),
        ("squares[size=1.5]", "squares: size='1.5' is not a whole number"),
        ("squares[noise=]", "squares: noise='' is not a number"),
        ("squares[outlined=maybe]", "squares: outlined='maybe' is not true or false"),
        ("squares[style=dotted]", "squares: style='dotted' is not one of flat, striped"),
        ("squares[seed=x]", "squares: seed='x' is not a whole number or none"),
        ("squares[size=0]", "squares: size=0 must be at least 1"),
        ("squares[size=3", r"'squares\[size=3' lacks the closing bracket"),
        ("easy-vqa[size=3]", "easy-vqa has no option 'size'; it has no options"),
    ],
)
def test_builtin_source_rejects_unknown_options(source, message, squares):
    for load in (load_pairs, load_pair_stream):
        with pytest.raises(ValueError, match=message):
            load(source)
    with pytest.raises(ValueError, match=message):
        usual_split([source])


@pytest.mark.parametrize("source", ["squares", "squares[size=3,colours=red+blue]"])
def test_registered_source_is_read_as_pairs_and_as_stream(source, squares):
    size = find_builtin(source).options.size
    rows = load_pairs(source)
    stream = load_pair_stream(source, skip_bad_rows=True)
    pairs = ImageTextPairs(concatenate([rows]))
    streamed = StreamedImageTextPairs(stream, shuffle_buffer=0, skip_bad_rows=True).sample(0)
    for index, (colour, example) in enumerate(zip(["red", "blue"], streamed, strict=True)):
        assert rows[index]["captions"] == [f"a {colour} square"] and rows[index]["keywords"] == []
        assert rows[index]["origin"] == f"Row {index} of {source}"
        assert pairs[index]["text"] == f"a {colour} square"
        assert pairs.row(index)["image"].size == (size, size)
        assert example["image_id"] == pairs[index]["image_id"]
    assert list(training_texts([rows, stream], [source, source, "other"], split="train+validation[:1]"))[-2:] == [
        "is it train",
        "is it validation",
    ]


def test_builtin_source_splits(squares):
    assert usual_split(["squares"]) == "validation" and usual_split(["easy-vqa"]) == "test"
    assert len(load_rows("squares", "train[:1]+validation", streaming=True)) == 3
    assert load_rows("squares", "train", task="entailment")[1]["hypothesis"] == "blue"
    with pytest.raises(ValueError, match="^squares has no column 'title'; set caption_column to one of image, captio"):
        load_pairs("squares", caption_column="title")


def test_builtin_source_names_win_over_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("easy-vqa", "easy-vqa1"):
        Path(folder).mkdir()
        Image.new("RGB", (3, 3)).save(f"{folder}/a.png")
        Path(f"{folder}/a.txt").write_text("a caption")
    assert len(load_pairs("easy-vqa", "train[:5]")) == 5
    for path in ("./easy-vqa", str(tmp_path / "easy-vqa"), "easy-vqa1", "easy-vqa[12]/a.png"):
        assert load_pairs(path)["captions"] == [["a caption"]]
