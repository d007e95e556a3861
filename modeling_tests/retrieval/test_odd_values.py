"""Odd values given to the pipeline and the retriever give a result or a short error."""

import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_vqa
import torch
from PIL import Image
from tiny import build, tiny_processor, tiny_rows

from transformers_cbvila import CBViLAForImageTextRetrieval, CBViLARetriever, CBViLAVisualQuestionAnsweringPipeline

IMAGE = tiny_vqa.picture(0)
ODD = {
    **{repr(value): value for value in (None, 0, -1, 1.5, True, "", b"", "\0", "/", "http://", "data:", "file:///x")},
    **{repr(value): value for value in ([], (), {}, {"a": 1}, {1}, [None], [[]], [{}], [1], ["a", 1], float("nan"))},
    "long text": "x" * 100_000,
    "long bytes": b"x" * 100_000,
    "object": object(),
    "number in an array": np.array(3),
    "empty array": np.zeros((0, 3, 3)),
    "five dimensions": np.zeros((2, 2, 2, 2, 2)),
    "objects": np.array(["a", None], dtype=object),
    "complex": np.zeros((3, 3), dtype=complex),
    "date": np.datetime64("2020-01-01"),
    "empty tensor": torch.zeros(0),
    "batch of one": torch.zeros(1, 2, 3, 3),
    "Series": pd.Series([np.nan, "a"]),
    "empty frame": pd.DataFrame(),
    "path": Path("/"),
    "file": BytesIO(b""),
    "image of nothing": Image.new("RGB", (0, 0)),
    "images in a list in a list": [[IMAGE]],
    "large number": 10**30,
    "function": print,
}


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """What is called with one odd value, by name."""
    options = {"generate_kwargs": {"max_new_tokens": 2}}
    ask = CBViLAVisualQuestionAnsweringPipeline(tiny_vqa.tiny_model(), processor=tiny_vqa.tiny_processor(), **options)
    found = CBViLARetriever(build(CBViLAForImageTextRetrieval), tiny_processor())
    found.index([row["image"] for row in tiny_rows(4)], progress=False)

    described = CBViLARetriever(found.model, found.processor)
    described.index([IMAGE], progress=False, metadata=[{"a": 1}])

    def index(*args, **kwargs):
        CBViLARetriever(found.model, found.processor).index(*args, progress=False, **kwargs)

    pair = {"image": IMAGE, "question": "red"}
    return {
        "image": lambda odd: ask(odd, "red"),
        "question": lambda odd: ask(IMAGE, odd),
        "pair": lambda odd: ask(odd),
        "image of a pair": lambda odd: ask([pair, {**pair, "image": odd}], batch_size=2),
        "question of a pair": lambda odd: ask([pair, {**pair, "question": odd}], batch_size=2),
        "answers": lambda odd: ask(IMAGE, "red", answers=odd),
        "an answer": lambda odd: ask(IMAGE, "red", answers=["red", odd]),
        "top_k of answers": lambda odd: ask(IMAGE, "red", answers=["red"], top_k=odd),
        "generate_kwargs": lambda odd: ask(IMAGE, "red", generate_kwargs=odd),
        "max_new_tokens": lambda odd: ask(IMAGE, "red", generate_kwargs={"max_new_tokens": odd}),
        "truncation": lambda odd: ask(IMAGE, "red", truncation=odd),
        "timeout": lambda odd: ask("http://127.0.0.1:1/a.png", "red", timeout=odd),
        "batch_size": lambda odd: ask([pair], batch_size=odd),
        "images": lambda odd: None if odd in ("/", Path("/")) else index(odd),  # not all pictures of this machine
        "an image": lambda odd: index([odd]),
        "texts": lambda odd: index(texts=odd),
        "a text": lambda odd: index(texts=["left", odd]),
        "batch_size of index": lambda odd: index([IMAGE], batch_size=odd),
        "max_length of index": lambda odd: index(texts=["left"], max_length=odd),
        "shard_bytes": lambda odd: index([IMAGE], folder=tmp_path_factory.mktemp("g"), shard_bytes=odd),
        "metadata": lambda odd: index([IMAGE], metadata=odd),
        "metadata of an item": lambda odd: index([IMAGE], metadata=[odd]),
        "a column": lambda odd: index([IMAGE], metadata=[{"a": odd}]),
        "filter": lambda odd: described.search(text="left", filter=None if odd is print else odd),
        "value of a filter": lambda odd: described.search(text="left", filter={"a": odd}),
        "fold_duplicates": lambda odd: found.search(text="left", fold_duplicates=odd),
        "negative_image": lambda odd: found.search(text="left", negative_image=odd),
        "text to search": lambda odd: found.search(text=odd),
        "image to search": lambda odd: found.search(image=odd),
        "top_k": lambda odd: found.search(text="left", top_k=odd),
        "rerank_k": lambda odd: found.search(text="left", rerank_k=odd),
        "similarity_weight": lambda odd: found.search(text="left", rerank_k=2, similarity_weight=odd),
        "folder to load": lambda odd: CBViLARetriever(found.model, found.processor).load(odd),
    }


@pytest.mark.parametrize("name", ODD)
def test_odd_values_are_taken_or_rejected_in_short_errors(calls, name):
    refused = 0
    for call in calls.values():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                call(ODD[name])
        except (ValueError, FileNotFoundError) as error:
            refused += 1
            assert 10 < len(str(error)) < 1000
    assert refused > len(calls) / 2 or name in ("None", "True")
