"""Where training pairs come from: easy-VQA, folders, Parquet files or Hub data sets, brought to one form of rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..extras import require
from .easy_vqa import load_easy_vqa, load_easy_vqa_captions

if TYPE_CHECKING:
    from datasets import Dataset

EASY_VQA = "easy-vqa"  # the name that stands for the PyPI package instead of a folder


def load_pairs(
    source: str,
    split: str = "train",
    image_column: str = "image",
    caption_column: str = "caption",
    keyword_columns: Sequence[str] = (),
) -> Dataset:
    """Image-caption pairs with the columns `image`, `captions` (list) and `keywords` (list).

    Args:
        source: `"easy-vqa"`, a folder (image folder or Parquet files), a Parquet file, or the id of a Hub data set.
        split: Split to load.
        image_column: Column with the images.
        caption_column: Column with a caption, or a list of captions, per image.
        keyword_columns: Columns with a list of keywords; the first that a source has is used.

    Raises:
        ValueError: If the source has no such column; the message lists those it has.
    """
    if source == EASY_VQA:
        rows = load_easy_vqa_captions(split).remove_columns("image_id")
        return rows.add_column("keywords", [[] for _ in range(len(rows))])
    datasets = require("datasets")
    rows = _load(source, split)
    for name, column in (("image_column", image_column), ("caption_column", caption_column)):
        if column not in rows.column_names:
            raise ValueError(
                f"{source} has no column {column!r}; set {name} to one of {', '.join(rows.column_names)}."
            )
    keyword_column = next((name for name in keyword_columns if name in rows.column_names), None)
    captions = [_as_list(value) for value in rows[caption_column]]
    keywords = [list(value or []) for value in rows[keyword_column]] if keyword_column else [[]] * len(rows)
    rows = rows.select_columns([image_column]).rename_columns(
        {image_column: "image"} if image_column != "image" else {}
    )
    texts = datasets.List(datasets.Value("string"))
    rows = rows.add_column("captions", captions, feature=texts).add_column("keywords", keywords, feature=texts)
    return rows.cast_column("image", datasets.Image(mode="RGB"))


def concatenate(sources: Sequence[Dataset]) -> Dataset:
    """All rows of several sources of the same form."""
    datasets = require("datasets")
    texts = datasets.List(datasets.Value("string"))
    features = datasets.Features(image=datasets.Image(mode="RGB"), captions=texts, keywords=texts)
    return datasets.concatenate_datasets([source.cast(features) for source in sources])


def training_texts(sources: Sequence[Dataset], names: Sequence[str]) -> list[str]:
    """Every text that a vocabulary for these sources should know, easy-VQA's questions and answers included."""
    texts = [text for rows in sources for column in ("captions", "keywords") for row in rows[column] for text in row]
    if EASY_VQA in names:
        questions = load_easy_vqa("train")
        texts += [text for column in ("question", "answer") for row in questions[column] for text in row]
    return texts


def _load(source: str, split: str) -> Dataset:
    datasets = require("datasets")
    if source.endswith(".parquet"):
        if not Path(source).is_file():
            raise FileNotFoundError(f"{source} isn't there: give a Parquet file, a folder or a Hub data set id.")
        return datasets.load_dataset("parquet", data_files={split: source}, split=split)
    return datasets.load_dataset(source, split=split)


def _as_list(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
