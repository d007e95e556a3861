"""Galleries on disk, for more images or texts than memory holds: what was encoded is mapped, not read.

Shapes: M images or texts, S tokens, D width of states, E embedding width.
"""

import json
import os
import shutil
import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, chain, islice
from operator import length_hint
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.pairs import file_identity, stable_id
from ..model.item_lists_cbvila import is_by_position, items_of
from ..model.number_checks_cbvila import check_whole
from ..model.processing_cbvila import CBViLAProcessor
from ..output_folders import is_free
from .gallery import Encoded, Gallery, RetrievalModel, encode_batches, gather, weights_id
from .shards import Shards, flat_values, is_written, read_description, tables

SHARD_BYTES = 2**25  # of a file of a gallery
_PART_BYTES, _PART_ROWS = 2**22, 1000  # of what is written at a time
# Arrow has no bfloat16: its bits are kept as integers.
_STORED_AS = {torch.bfloat16: torch.int16}
# What an image processor's file says of itself, or of where pixels go, and not of what they are.
_NOT_OF_PIXELS = {
    *("image_processor_type", "feature_extractor_type", "processor_class", "_processor_class", "auto_map"),
    *("transformers_version", "_name_or_path"),
    *("data_format", "input_data_format", "return_tensors", "device", "disable_grouping"),
}


class StoredStates(Sequence):
    """The states (S, D) of each item, from parts of flat values and the places where items begin and end in them."""

    def __init__(self, values: list[Tensor], offsets: list[Any], width: int):
        self.values, self.offsets, self.width = values, offsets, width
        self.ends = list(accumulate(len(part) - 1 for part in offsets))

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, row):
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        part = bisect_right(self.ends, row)
        offsets, place = self.offsets[part], int(row) - (self.ends[part - 1] if part else 0)
        return self.values[part][offsets[place] : offsets[place + 1]].view(-1, self.width)


class StoredGallery:
    """A [`Gallery`] in a folder that [`store_gallery`] wrote.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it was not finished.
    """

    def __init__(self, folder: str | Path):
        self.description, self.folder = read_description(folder), Path(folder)
        parts = tables(folder)
        if not self.description.get("complete"):
            raise ValueError(
                f"The gallery in {folder} isn't complete ({sum(map(len, parts)):,} items so far): go on with "
                f"index(..., folder={str(folder)!r})."
            )
        chunks = _chunks(parts, "embeds")
        self.blocks = [_mapped(chunk).view(len(chunk), -1) for chunk in chunks]
        self.states: Sequence[Tensor] = []
        if self.description["width"]:
            chunks = _chunks(parts, "states")
            dtype = getattr(torch, self.description["dtype"])
            values = [_mapped(chunk).view(dtype) for chunk in chunks]
            offsets = [flat_values(chunk.offsets, np.int32) for chunk in chunks]
            self.states = StoredStates(values, offsets, self.description["width"])


def _chunks(parts: Sequence[Any], column: str) -> list[Any]:
    """A column's arrays, part by part: a shard is written in batches."""
    return [chunk for part in parts for chunk in part.column(column).chunks if len(chunk)]


def _mapped(array: Any) -> Tensor:
    """The numbers of an Arrow array of lists as a tensor in the same place."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given (NumPy array|buffer) is not writable")
        return torch.from_numpy(flat_values(array, array.type.value_type.to_pandas_dtype()))


def store_gallery(
    folder: str | Path,
    model: RetrievalModel,
    processor: CBViLAProcessor,
    kind: str,
    items: Iterable[Any],
    max_length: int = 30,
    batch_size: int = 64,
    progress: bool = True,
    keep_states: bool = True,
    shard_bytes: int = SHARD_BYTES,
) -> StoredGallery:
    """Encodes `"images"` or `"texts"` into a folder, or what of them is not there yet.

    Args:
        shard_bytes: About how much is in one file, and so how much a killed run loses. In memory are a few batches.

    Raises:
        ValueError: If the folder holds anything else: another number of items, other strings, paths or files, items
            that are encoded otherwise where some are looked at, or what another model or processor made of them. So it
            does if it was written before galleries noted their processor: nobody knows whether it was this one
            ([`StoredGallery`] still opens it).
    """
    check_whole("shard_bytes", shard_bytes)
    if is_written(folder) and "processor" not in read_description(folder):
        raise ValueError(
            f"{folder} is from before galleries noted what the processor does, so that nothing can be added to it: "
            "give another folder, or delete this one to start again."
        )
    items = items_of(items, kind)
    description = describe(model, processor, kind, keep_states)
    description |= {"max_length": max_length, "content": _content(items, kind)}
    shards, count = Shards(folder, description), length_hint(items, -1)
    if count >= 0 and (shards.rows > count or shards.complete and shards.rows != count):
        raise ValueError(f"{folder} holds {shards.rows:,} {kind}, and these are {count:,}: give another folder.")
    if shards.rows and description["content"] is None:

        def encode(some: list[Any]) -> Tensor:
            return gather(encode_batches(model, processor, kind, some, max_length, progress=False)).embeds

        items = _looked_at(items, shards, encode, tolerance=1e-3 if model.dtype.itemsize >= 4 else 3e-2)
    if not shards.complete:
        options = max_length, batch_size, progress, shards.rows, keep_states
        _fill(shards, encode_batches(model, processor, kind, items, *options), shard_bytes)
    return StoredGallery(folder)


def describe(model: RetrievalModel, processor: CBViLAProcessor, kind: str, has_states: bool) -> dict[str, Any]:
    """What a gallery has to have in common with others that one can search in, or go on with, in the same way."""
    config = model.config.vision_config if kind == "images" else model.config.text_config
    return {
        "kind": kind,
        "weights": weights_id(model),
        "width": config.hidden_size if has_states else 0,
        "dtype": str(model.dtype).removeprefix("torch."),
        "processor": processor_id(processor, kind),
    }


def processor_id(processor: CBViLAProcessor, kind: str) -> int:
    """A number that tells whether two galleries were made of the same pixels of images, or the same tokens of texts.

    Of tokens it knows how many there are, and whether texts have their end; of pixels all that the image processor's
    file says but who wrote it. Its two classes, with and without torchvision, are the same.
    """
    settings: dict[str, Any]
    if kind == "images":
        known = processor.image_processor.to_dict()
        settings = {k: v for k, v in known.items() if k not in _NOT_OF_PIXELS and v is not None}
    else:
        settings = {"tokens": len(processor.tokenizer), "add_sep_token": processor.add_sep_token}
    return stable_id(json.dumps(settings, sort_keys=True, default=str))


def _content(items: Any, kind: str) -> int | None:
    """What tells items from others without decoding them: texts by what they say, paths also by the files there.

    Unknown of anything else, but where the items know it themselves (`fingerprint()`).
    """
    if hasattr(items, "fingerprint"):
        return items.fingerprint()
    if not isinstance(items, list | tuple) or not all(isinstance(item, str | os.PathLike) for item in items):
        return None
    return stable_id("\0".join(file_identity(item) if kind == "images" else str(item) for item in items))


def _looked_at(items: Any, shards: Shards, encode: Callable[[list[Any]], Tensor], tolerance: float) -> Any:
    """The items as they came, some of which were encoded anew: a gallery is gone on with only where they agree."""
    if is_by_position(items):
        places = sorted({0, shards.rows // 2, shards.rows - 1})
        some = [items[place] for place in places]
    else:
        places, items = [0], iter(items)
        some = list(islice(items, 1))
        items = chain(some, items)
    for place, embeds in zip(places, encode(some), strict=True):
        if not torch.allclose(
            embeds, torch.tensor(shards.values("embeds", place), dtype=embeds.dtype), atol=tolerance, rtol=0
        ):
            raise ValueError(
                f"{shards.folder} holds other items than these, item {place} for one: give another folder, or delete "
                "this one to start again."
            )
    return items


def _fill(shards: Shards, batches: Iterable[Encoded], shard_bytes: int) -> None:
    shards.extend(map(_columns, _joined(batches, min(shard_bytes, _PART_BYTES))), shard_bytes)
    shards.finish()


def _joined(batches: Iterable[Encoded], size: int) -> Iterator[list[Encoded]]:
    """Batches that are written together: searching goes through what is stored part by part."""
    waiting, rows, held = list[Encoded](), 0, 0
    for batch in batches:
        waiting.append(batch)
        rows += len(batch.embeds)
        held += batch.embeds.nbytes + sum(states.nbytes for states in batch.states)
        if held >= size or rows >= _PART_ROWS:
            yield waiting
            waiting, rows, held = [], 0, 0
    if waiting:
        yield waiting


def _columns(batches: list[Encoded]) -> dict[str, Any]:
    whole = gather(batches)
    columns: dict[str, Any] = {"embeds": whole.embeds.numpy()}
    if whole.states:
        stored = _STORED_AS.get(whole.states[0].dtype, whole.states[0].dtype)
        columns["states"] = [states.flatten().view(stored).numpy() for states in whole.states]
    return columns


def save_gallery(folder: Path, description: dict[str, Any], gallery: Gallery, shard_bytes: int = SHARD_BYTES) -> None:
    """Writes a gallery in place of one that may be there, under another name until it is whole.

    Raises:
        ValueError: If the folder holds anything else.
    """
    if not is_free(folder) and not is_written(folder):
        raise ValueError(f"{folder} holds other files: give a folder that is empty, or not there yet.")
    unfinished = folder.with_name(f".{folder.name}.unfinished-gallery")  # a name that nobody gives to anything else
    shutil.rmtree(unfinished, ignore_errors=True)
    if isinstance(gallery, StoredGallery):
        shutil.copytree(gallery.folder, unfinished)
    else:
        _fill(Shards(unfinished, description), _parts(gallery), shard_bytes)
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(unfinished, folder)


def _parts(gallery: Gallery, size: int = 64) -> Iterator[Encoded]:
    """A gallery in memory, some items at a time."""
    embeds = torch.cat(list(gallery.blocks))
    for start in range(0, len(embeds), size):
        yield Encoded(embeds[start : start + size], gallery.states[start : start + size])
