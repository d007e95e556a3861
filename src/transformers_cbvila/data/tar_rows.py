"""Rows of WebDataset .tar files: consecutive members with the same name are a sample."""

from __future__ import annotations

import json
import posixpath  # of paths in a .tar, on every system
import tarfile
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..extras import require
from ..model.messages_cbvila import shown
from .bad_rows import KEY, URL
from .image_folders import caption_lines
from .images import is_image_file
from .pairs import file_identity
from .texts import is_missing

if TYPE_CHECKING:
    from datasets import Dataset, Features, IterableDataset

_SCANNED = 100  # samples that determine the columns
_TEXTS = ("txt", "text", "caption", "cls")

Sample = dict[str, Any]


def tar_rows(files: Sequence[str], streaming: bool = False) -> Dataset | IterableDataset:
    """Returns the samples of .tar files as rows; each file is a shard of a stream.

    A sample's image is `image`, whatever its ending (several, such as `left.png` and `right.png`, have a column each);
    `txt` is a list of captions, one per line; `cls` a class; the fields of a `json` object are columns. Other members
    are left out.

    Raises:
        ValueError: If a file is not a .tar, or has no samples.
    """
    datasets = require("datasets")
    features = _features(files)
    # with the state of the files, so that the cache is not used for another file of that name
    sources = {"files": list(files), "states": [file_identity(file) for file in files]}
    options = {"features": features, "gen_kwargs": {**sources, "columns": _plain(features)}}
    kind = datasets.IterableDataset if streaming else datasets.Dataset
    return kind.from_generator(_rows, **options)


def _rows(files: Sequence[str], states: Sequence[str], columns: dict[str, str]) -> Iterator[Sample]:
    for file in files:
        for sample in _samples(file):
            yield {name: _cell(sample.get(name), kind) for name, kind in columns.items()}


def _samples(file: str) -> Iterator[Sample]:
    """Yields the samples of a file, as columns."""
    sample: Sample = {}
    try:
        with tarfile.open(file, "r|*") as archive:
            for member in archive:
                folder, name = posixpath.split(member.name)
                stem, _, ending = name.partition(".")
                if not member.isfile() or not stem or not ending or folder.split("/")[0].startswith("__"):
                    continue
                key = posixpath.join(folder, stem)
                if sample and sample[KEY] != key:
                    yield _with_one_image(sample)
                    sample = {}
                sample.update({KEY: key, URL: file})
                _add(sample, ending.lower(), archive.extractfile(member).read())  # type: ignore[union-attr]
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(f"{file} cannot be read as a .tar file: {error}") from error
    if sample:
        yield _with_one_image(sample)


def _add(sample: Sample, ending: str, content: bytes) -> None:
    last = ending.rpartition(".")[2]
    if is_image_file(f"{sample[KEY]}.{ending}"):
        sample[ending] = {"path": f"{sample[KEY]}.{ending}", "bytes": content}
    elif last in _TEXTS:
        text = content.decode("utf-8-sig", errors="replace")
        sample[ending] = text.strip() if last == "cls" else caption_lines(text)
    elif last == "json":
        fields = _parsed(content, sample)
        for name, value in (fields if isinstance(fields, dict) else {ending: fields}).items():
            sample.setdefault(name, value)


def _parsed(content: bytes, sample: Sample) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise ValueError(f"{sample[URL]}: the .json of sample {shown(sample[KEY])} is not JSON: {error}") from error


def _with_one_image(sample: Sample) -> Sample:
    """Returns a sample whose only image is `image`: endings may differ between samples."""
    images = [name for name in sample if is_image_file(f"{sample[KEY]}.{name}") and name != "image"]
    if len(images) == 1:
        sample["image"] = sample.pop(images[0])
    return sample


def _features(files: Sequence[str]) -> Features:
    """Returns the columns of the first samples: images, texts, lists of captions, and anything else as JSON."""
    datasets = require("datasets")
    seen: dict[str, list[Any]] = {}
    for sample in islice((sample for file in files for sample in _samples(file)), _SCANNED):
        for name, value in sample.items():
            seen.setdefault(name, []).append(value)
    if not seen:
        raise ValueError(f"{files[0]} has no samples: expected files such as 0001.jpg and 0001.txt in the .tar.")
    kinds = {
        "image": datasets.Image(decode=False),
        "texts": datasets.List(datasets.Value("string")),
        "text": datasets.Value("string"),
        "json": datasets.Json(),
    }
    order = sorted(seen, key=lambda name: (name != "image", name.startswith("__")))
    return datasets.Features({name: kinds[_kind(seen[name])] for name in order})


def _kind(values: Sequence[Any]) -> str:
    values = [value for value in values if not is_missing(value)]
    if values and all(isinstance(value, dict) and set(value) == {"path", "bytes"} for value in values):
        return "image"
    if all(isinstance(value, str) for value in values):
        return "text"
    return "texts" if all(isinstance(value, list) and _all_texts(value) for value in values) else "json"


def _all_texts(values: Sequence[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _plain(features: Features) -> dict[str, str]:
    """Returns the kind of each column, in a form that the cache can hash."""
    datasets = require("datasets")
    kinds = {datasets.Image: "image", datasets.List: "texts", datasets.Value: "text", datasets.Json: "json"}
    return {name: kinds[type(feature)] for name, feature in features.items()}


def _cell(value: Any, kind: str) -> Any:
    """Returns a value as its column stores it: later samples may have values of other kinds than the first."""
    if kind == "text" and value is not None and not isinstance(value, str):
        return json.dumps(value)
    if kind == "texts" and value is not None and not (isinstance(value, list) and _all_texts(value)):
        return [value if isinstance(value, str) else json.dumps(value)]
    return value
