"""Where training pairs come from: easy-VQA, files, folders or Hub data sets, brought to one form of rows."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..extras import require
from .easy_vqa import load_easy_vqa, load_easy_vqa_captions

if TYPE_CHECKING:
    from datasets import Dataset, Features, IterableDataset

EASY_VQA = "easy-vqa"  # the name that stands for the PyPI package instead of a folder
CAPTION_COLUMNS = ("captions", "caption", "text")  # looked for, in this order, when none is named
_FORMATS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv"}
_MAX_SHARDS = 64  # of a stream over rows that lie on disk: what processes and workers can share out


def load_pairs(
    source: str,
    split: str = "train",
    image_column: str = "image",
    caption_column: str | None = None,
    keyword_columns: Sequence[str] = (),
) -> Dataset:
    """Image-caption pairs with the columns `image` (of any mode), `captions` (list) and `keywords` (list).

    Args:
        source: `"easy-vqa"`; a folder of images with a metadata.jsonl or metadata.csv, of Parquet files, or written by
            `save_to_disk`; a Parquet, JSON Lines or CSV file, or a pattern of several (`"data/*.parquet"`); or the id
            of a Hub data set. Paths of images in columns count from the folder, or the file's.
        split: Split to load.
        image_column: Column with the images.
        caption_column: Column with a caption, or a list of captions, per image; without one, the first of
            `captions`, `caption` and `text` that there is.
        keyword_columns: Columns with a list of keywords; the first that a source has is used.

    Raises:
        FileNotFoundError: If the source is a path and isn't there.
        ValueError: If the source has no such column; the message lists those it has.
    """
    datasets = require("datasets")
    if source == EASY_VQA:
        rows = load_easy_vqa_captions(split).remove_columns("image_id")
        return rows.add_column("keywords", [[] for _ in range(len(rows))])
    rows = load_rows(source, split)
    caption_column, keyword_column = _columns(source, rows.column_names, image_column, caption_column, keyword_columns)
    captions = [_texts(value) for value in rows[caption_column]]
    keywords = [_texts(value) for value in rows[keyword_column]] if keyword_column else [[]] * len(rows)
    rows = encoded_images(rows, image_column, source)
    texts = datasets.List(datasets.Value("string"))
    rows = rows.add_column("captions", captions, feature=texts).add_column("keywords", keywords, feature=texts)
    return rows.cast_column("image", datasets.Image())


def load_pair_stream(
    source: str,
    split: str = "train",
    image_column: str = "image",
    caption_column: str | None = None,
    keyword_columns: Sequence[str] = (),
) -> IterableDataset:
    """The rows of [`load_pairs`] as a stream, images not decoded: nothing is fetched or written ahead."""
    datasets = require("datasets")
    features = _pair_features(datasets.Image(decode=False))
    if source == EASY_VQA:
        return _as_stream(load_pairs(source, split).cast(features))
    rows = load_rows(source, split, streaming=True)
    if isinstance(rows, datasets.Dataset):
        rows = _as_stream(rows)
    names = list(rows.features or next(iter(rows)))  # JSON Lines, read as they come, have no declared columns
    caption_column, keyword_column = _columns(source, names, image_column, caption_column, keyword_columns)
    if rows.features and isinstance(rows.features[image_column], datasets.Image):
        rows = rows.cast_column(image_column, datasets.Image(decode=False))

    def pair(row: dict[str, Any]) -> dict[str, Any]:
        return {
            "image": _encoded(row[image_column], source),
            "captions": _texts(row[caption_column]),
            "keywords": _texts(row[keyword_column]) if keyword_column else [],
        }

    return rows.map(pair, remove_columns=[name for name in names if name not in features], features=features)


def load_rows(source: str, split: str, streaming: bool = False) -> Dataset | IterableDataset:
    """The rows of a source as they are; see [`load_pairs`]. A Hub id may name a revision: `"user/name@revision"`.

    Data sets of the Hub that are made by a script of their own, which `datasets` runs no longer, have their rows as
    Parquet in the revision `refs/convert/parquet`.
    """
    datasets = require("datasets")
    path = Path(source)
    _check_is_there(source)
    if (path / "dataset_dict.json").is_file():
        parts = datasets.load_from_disk(source)
        if split not in parts:
            raise ValueError(f"{source} has no split {split!r}; it has {', '.join(parts)}.")
        return parts[split]
    if _is_saved_rows(path):
        return datasets.load_from_disk(source)
    try:
        if path.suffix in _FORMATS:
            files = {split.partition("[")[0]: source}  # "test[:100]" is a part of a split
            return datasets.load_dataset(_FORMATS[path.suffix], data_files=files, split=split, streaming=streaming)
        name, revision = _name_and_revision(source)
        return datasets.load_dataset(name, revision=revision, split=split, streaming=streaming)
    except (ValueError, RuntimeError, StopIteration, datasets.exceptions.DatasetsError) as error:
        # datasets does not say what it was reading, and says in an error's cause what was wrong with it
        raise ValueError(f"{source} (split {split}) cannot be read: {_innermost(error)}") from error


def usual_split(sources: Sequence[str], preferred: Sequence[str] = ("test", "validation")) -> str:
    """The split to take where none is named: the first of `preferred` that all sources have, or their only one.

    Single files, and rows that `save_to_disk` wrote without splits, go by any name.

    Raises:
        FileNotFoundError: If a source is a path and isn't there.
        ValueError: If no split is common to all, or several are and none is preferred; the message lists them.
    """
    splits = {source: names for source in sources if (names := _split_names(source)) is not None}
    if not splits:
        return preferred[0]
    common = [name for name in next(iter(splits.values())) if all(name in names for names in splits.values())]
    chosen = [name for name in preferred if name in common] or common
    if not chosen or (len(chosen) > 1 and chosen[0] not in preferred):
        found = "; ".join(f"{source} has {', '.join(names)}" for source, names in splits.items())
        raise ValueError(f"There is no split {' or '.join(preferred)}: {found}. Name one as the split.")
    return chosen[0]


def _split_names(source: str) -> list[str] | None:
    """Names of the splits of a source; None if it goes by any, or if they are not known before it is read."""
    datasets = require("datasets")
    path = Path(source)
    if source == EASY_VQA:
        return ["train", "test"]
    _check_is_there(source)
    if path.suffix in _FORMATS or _is_saved_rows(path):
        return None
    if (path / "dataset_dict.json").is_file():
        return json.loads((path / "dataset_dict.json").read_text())["splits"]
    name, revision = _name_and_revision(source)
    try:
        return datasets.get_dataset_split_names(name, revision=revision)
    except datasets.inspect.SplitsNotFoundError:  # such as a Hub data set that is in the cache, without a network
        return None


def _check_is_there(source: str) -> None:
    """Raises a FileNotFoundError if a source can only be a path, and isn't there."""
    path = Path(source)
    if path.suffix in _FORMATS:
        there = bool(glob.glob(source))
    else:
        name, _ = _name_and_revision(source)
        is_path = path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1
        there = path.is_dir() or not is_path
    if not there:
        raise FileNotFoundError(f"{source} isn't there: give a file, a pattern of files, a folder or a Hub id.")


def _innermost(error: BaseException) -> str:
    """What the first cause of an error says, in a line; an empty file stops readers that await a line."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, StopIteration) or "corresponds to no data" in str(error):
        return "it has no rows"
    return " ".join(str(error).split()) or type(error).__name__


def _is_saved_rows(path: Path) -> bool:
    """Whether `Dataset.save_to_disk` wrote a folder: rows without splits."""
    return (path / "dataset_info.json").is_file() and (path / "state.json").is_file()


def _name_and_revision(source: str) -> tuple[str, str | None]:
    """A Hub id without its revision, and this; the name of a folder may have an @."""
    name, _, revision = source.partition("@")
    return (name, revision) if revision and not Path(source).is_dir() else (source, None)


def encoded_images(rows: Dataset, column: str, source: str) -> Dataset:
    """One column of a source's rows as the only one, `image`, not decoded. ValueError if it holds anything else."""
    datasets = require("datasets")
    rows = rows.select_columns([column])
    _check_holds_images(rows.features[column], column, source)
    if column != "image":
        rows = rows.rename_column(column, "image")
    if getattr(rows.features["image"], "dtype", None) in ("string", "large_string"):  # the latter of CSV files
        paths = [None if path is None else _locate(path, source) for path in rows["image"]]
        rows = datasets.Dataset.from_dict({"image": paths}, split=rows.split)
    return rows.cast_column("image", datasets.Image(decode=False))


def _check_holds_images(feature: Any, column: str, source: str) -> None:
    """Images of `datasets`, records of bytes and path, paths, or the bytes of files."""
    datasets = require("datasets")
    is_record = isinstance(feature, dict) and {"bytes", "path"} <= set(feature)
    kinds = ("string", "large_string", "binary", "large_binary", "null")
    if isinstance(feature, datasets.Image) or is_record or getattr(feature, "dtype", None) in kinds:
        return
    if isinstance(feature, datasets.List | datasets.LargeList | list):
        raise ValueError(
            f"Column {column!r} of {source} holds lists; expected an image in each row. Give every image of a row a "
            "column of its own, and name them all as image_column."
        )
    raise ValueError(
        f"Column {column!r} of {source} holds {getattr(feature, 'dtype', feature)}; expected images, paths or the "
        "bytes of image files. Name another as image_column."
    )


def concatenate(sources: Sequence[Dataset], weights: Sequence[float] = (), seed: int = 0) -> Dataset:
    """The rows of several sources of the same form, those without a caption left out.

    Args:
        weights: How often rows of each source come, relative to each other. A pass then ends when every row has come,
            rows of the others more than once. Without weights every row comes once: the larger source, the more often.
        seed: Seed of the draws that weights decide.
    """
    datasets = require("datasets")
    features = _pair_features(datasets.Image())
    parts = [_with_captions(source.cast(features)) for source in sources]
    return _mix(parts, weights, seed) if weights else datasets.concatenate_datasets(parts)


def interleave(sources: Sequence[IterableDataset], weights: Sequence[float] = (), seed: int = 0) -> IterableDataset:
    """Several streams as one.

    Args:
        weights: As of [`concatenate`]. Without weights, it takes a row of each in turn, those at their end left out:
            every row comes once in a pass, at whose end only the largest source is left.
        seed: Seed of the draws that weights decide.
    """
    if weights:
        return _mix(sources, weights, seed)
    if len(sources) == 1:
        return sources[0]
    return require("datasets").interleave_datasets(
        list(sources), stopping_strategy="all_exhausted_without_replacement"
    )


def check_weights(weights: Sequence[float], sources: int) -> None:
    """Raises a ValueError unless there are none, or a positive one for each source."""
    if weights and len(weights) != sources:
        raise ValueError(f"There are {len(weights)} weights for {sources} source(s): give one for each, or none.")
    if not all(0 < weight < float("inf") for weight in weights):
        raise ValueError(f"Weights {list(weights)} must be above 0; leave a source out that is not to be read.")


def training_texts(
    sources: Sequence[Dataset | IterableDataset], names: Sequence[str], stream_rows: int = 100_000
) -> Iterator[str]:
    """Every text that a vocabulary for these sources should know, easy-VQA's questions and answers included.

    Args:
        stream_rows: Of a stream, how many rows are read for it.
    """
    datasets = require("datasets")
    for rows in sources:
        texts = rows.select_columns(["captions", "keywords"])
        for row in texts if isinstance(rows, datasets.Dataset) else islice(texts, stream_rows):
            yield from row["captions"]
            yield from row["keywords"]
    if EASY_VQA in names:
        questions = load_easy_vqa("train")
        for column in ("question", "answer"):
            for row in questions[column]:
                yield from row


def _mix(sources: Sequence[Any], weights: Sequence[float], seed: int) -> Any:
    check_weights(weights, len(sources))
    if len(sources) == 1:
        return sources[0]
    shares = [weight / sum(weights) for weight in weights]
    return require("datasets").interleave_datasets(
        list(sources), probabilities=shares, seed=seed, stopping_strategy="all_exhausted"
    )


def _with_captions(rows: Dataset) -> Dataset:
    kept = [row for row, captions in enumerate(rows["captions"]) if captions]
    return rows if len(kept) == len(rows) else rows.select(kept)


def _pair_features(image: Any) -> Features:
    datasets = require("datasets")
    texts = datasets.List(datasets.Value("string"))
    return datasets.Features(image=image, captions=texts, keywords=texts)


def _as_stream(rows: Dataset) -> IterableDataset:
    return rows.to_iterable_dataset(num_shards=max(1, min(_MAX_SHARDS, len(rows))))


def _columns(
    source: str, names: Sequence[str], image: str, caption: str | None, keywords: Sequence[str]
) -> tuple[str, str | None]:
    """The caption and the keyword column of a source with columns of these names."""
    found = next((name for name in CAPTION_COLUMNS if name in names), None) if caption is None else caption
    for option, column in (("image_column", image), ("caption_column", found)):
        if column not in names:
            what = f"column {column!r}" if column else f"column called {', '.join(CAPTION_COLUMNS)}"
            raise ValueError(f"{source} has no {what}; set {option} to one of {', '.join(names)}.")
    assert found is not None
    return found, next((name for name in keywords if name in names), None)


def _locate(path: str, source: str) -> str:
    """An image's path as a file, or a folder of files, names it: from that folder, unless it is complete."""
    if "://" in path or Path(path).is_absolute():
        return path
    folder = Path(source) if Path(source).is_dir() else Path(source).parent
    if glob.has_magic(str(folder)):
        raise ValueError(
            f"Image {path!r} of {source} counts from the folder of its file, and the pattern has several: name the "
            "folders one by one, or give complete paths."
        )
    return str(folder / path)


def _encoded(image: Any, source: str) -> Any:
    """An image as `datasets` keeps it, from a path or the bytes of a file."""
    if isinstance(image, str):
        return {"path": _locate(image, source), "bytes": None}
    return {"path": None, "bytes": image} if isinstance(image, bytes) else image


def _texts(value: str | Sequence[str | None] | None) -> list[str]:
    """The texts of a cell, a string or a list of them; what is blank is none."""
    texts = [value] if isinstance(value, str) else value or []
    return [text.strip() for text in texts if text is not None and text.strip()]
