"""items_of and check_item: single items, lists, and how lists are read."""

from collections import OrderedDict, deque
from io import BytesIO
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset
from transformers.pipelines.pt_utils import KeyDataset

from transformers_cbvila.model.item_lists_cbvila import check_item, holds_several, is_by_position, items_of

WORDS = ["a", "b", "c"]


class Numbered(Dataset):
    def __init__(self, items=WORDS):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class WithoutBase:
    """What iteration itself reads by number."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return WORDS[index]


class Labelled(WithoutBase):
    """As pandas and polars columns: [...] is not what iteration gives."""

    def __getitem__(self, label):
        return {"x": "a", 2: "z"}[label]

    def __iter__(self):
        return iter(WORDS)


class Streamed(IterableDataset):
    def __iter__(self):
        return iter(WORDS)


class StreamedOfKnownLength(Streamed):
    def __len__(self):
        return 3


class Subclass(list):
    pass


def objects():
    array = np.empty(3, dtype=object)
    array[:] = WORDS
    return array


def hugging_face():
    datasets = pytest.importorskip("datasets")
    return datasets.Dataset.from_dict({"word": WORDS})


def polars_series():
    return pytest.importorskip("polars").Series(WORDS)


BY_POSITION = {
    "list": lambda: WORDS,
    "tuple": lambda: tuple(WORDS),
    "deque": lambda: deque(WORDS),
    "subclass of list": lambda: Subclass(WORDS),
    "torch data set": Numbered,
    "KeyDataset": lambda: KeyDataset(Numbered([{"word": word} for word in WORDS]), "word"),
    "no base class": WithoutBase,
    "column of datasets": lambda: hugging_face()["word"],
    "Series": lambda: pd.Series(WORDS, index=[2, 1, 0]),
    "filtered Series": lambda: pd.Series([0, *WORDS])[1:],
    "Series of strings": lambda: pd.Series(WORDS, dtype="string"),
    "Index": lambda: pd.Index(WORDS),
    "Categorical": lambda: pd.Categorical(WORDS),
    "objects": objects,
    "texts in an array": lambda: np.array(WORDS),
    "polars": polars_series,
    "labelled": Labelled,
}
BY_ITERATION = {
    "generator": lambda: (word for word in WORDS),
    "iterator": lambda: iter(WORDS),
    "map": lambda: map(str, WORDS),
    "stream": Streamed,
    "stream of known length": StreamedOfKnownLength,
    "values of a dictionary": lambda: dict(enumerate(WORDS)).values(),
    "keys of a dictionary": lambda: dict.fromkeys(WORDS).keys(),
    "stream of datasets": lambda: hugging_face().to_iterable_dataset()["word"],
}


@pytest.mark.parametrize("kind", BY_POSITION)
def test_items_of_read_by_position(kind):
    given = BY_POSITION[kind]()
    items = items_of(given, "words")
    assert holds_several(given) and is_by_position(items)
    assert [items[i] for i in range(len(items))] == WORDS


@pytest.mark.parametrize("kind", BY_ITERATION)
def test_items_of_read_by_iteration(kind):
    given = BY_ITERATION[kind]()
    items = items_of(given, "words")
    assert holds_several(given) and not is_by_position(items)
    assert list(items) == WORDS


def test_items_of_dataset_rows_by_position():
    rows = items_of(hugging_face(), "rows")
    assert is_by_position(rows) and rows[2] == {"word": "c"}


@pytest.mark.parametrize("kind", [np.zeros, torch.zeros])
def test_items_of_arrays_by_dimensions(kind):
    assert not holds_several(kind((2, 3, 3))) and not holds_several(kind((3, 3)))
    items = items_of(kind((2, 4, 5, 3)), "images")
    assert [tuple(item.shape) for item in items] == [(4, 5, 3)] * 2


@pytest.mark.parametrize(
    "given, message",
    [
        ({"a": 1}, r"words is a dictionary with the keys \['a'\]: pass a list"),
        (OrderedDict(a=1), "words is a dictionary"),
        (MappingProxyType({"a": 1}), "words is a dictionary"),
        ({"a", "b"}, "words is a set, which has no order"),
        (frozenset("a"), "words is a frozenset"),
        (pd.DataFrame({"a": WORDS}), r"words is a table \(DataFrame\): pass one of its columns"),
        ("text", "words is one string, 'text': pass a list"),
        (b"text", "words is one item"),
        (Path("x.png"), r"words is one item, PosixPath\('x.png'\)"),
        (Image.new("RGB", (2, 2)), "words is one item, <PIL.Image"),
        (np.zeros((2, 2, 3)), "words is one item"),
        (BytesIO(), "words is one item"),
        (None, "words is one item, None"),
        (3, "words is one item, 3"),
        ("x" * 100_000, r"\(100,000 characters\)"),
    ],
)
def test_items_of_rejects_other_types(given, message):
    with pytest.raises(ValueError, match=message) as caught:
        items_of(given, "words")
    assert len(str(caught.value)) < 400


def test_items_of_rejects_tables():
    with pytest.raises(ValueError, match="is a table"):
        items_of(pytest.importorskip("pyarrow").table({"a": WORDS}), "words")
    with pytest.raises(ValueError, match="is a table"):
        items_of(pytest.importorskip("polars").DataFrame({"a": WORDS}), "words")


@pytest.mark.parametrize(
    "item, message",
    [
        (None, r"images\[3\] is missing \(None\)"),
        ({"image": 1, "text": 2}, r"images\[3\] is a row with the fields \['image', 'text'\]: pass one column"),
        (["a.png", "b.png"], r"images\[3\] holds several items, \['a.png', 'b.png'\]: pass them all in one list"),
        (("a.png",), r"images\[3\] holds several items"),
        (np.zeros((2, 4, 4, 3)), r"images\[3\] holds several items, an array of shape \(2, 4, 4, 3\)"),
        (torch.zeros(2, 3, 4, 4), r"an array of shape \(2, 3, 4, 4\)"),
        ((x for x in "ab"), r"images\[3\] holds several items"),
    ],
)
def test_check_item_rejects_lists(item, message):
    with pytest.raises(ValueError, match=message):
        check_item(item, "images[3]")


@pytest.mark.parametrize(
    "item", ["a.png", Path("a.png"), b"bytes", Image.new("L", (1, 1)), np.zeros((2, 2)), torch.zeros(1, 3, 2, 2), 3.0]
)
def test_check_item_accepts_single_items(item):
    check_item(item, "images[3]")
