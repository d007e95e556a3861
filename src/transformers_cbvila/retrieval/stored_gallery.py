"""Galleries on disk, for more images or texts than fit in memory: files are memory-mapped.

Shapes: M images or texts, S tokens, D size of states, E embedding size.
"""

import json
import os
import shutil
import warnings
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
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
from .encoding import GalleryEncoder, weights_id
from .gallery import Encoded, Gallery, concatenate
from .shards import Shards, flat_values, is_written, read_description, tables

SHARD_BYTES = 2**25  # per file of a gallery
_PART_BYTES, _PART_ROWS = 2**22, 1000  # per write
# Arrow has no bfloat16: its bits are stored as integers.
_STORED_AS = {torch.bfloat16: torch.int16}
# Settings of an image processor that do not change pixel values.
_NOT_OF_PIXELS = {
    *("image_processor_type", "feature_extractor_type", "processor_class", "_processor_class", "auto_map"),
    *("transformers_version", "_name_or_path"),
    *("data_format", "input_data_format", "return_tensors", "device", "disable_grouping"),
}


class StoredStates(Sequence[Tensor]):
    """The states (S, D) of each item, as views into memory-mapped files.

    Args:
        values: The flat values of each file.
        offsets: For each file, where its items begin in the values, and where the last one ends.
        width: D.
    """

    def __init__(self, values: list[Tensor], offsets: list[np.ndarray], width: int) -> None:
        self.values, self.offsets, self.width = values, offsets, width
        self.ends = list(accumulate(len(part) - 1 for part in offsets))

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, row: Any) -> Any:  # one row: slices are not needed
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        part = bisect_right(self.ends, row)
        offsets, place = self.offsets[part], int(row) - (self.ends[part - 1] if part else 0)
        return self.values[part][offsets[place] : offsets[place + 1]].view(-1, self.width)


class StoredGallery:
    """A [`Gallery`] in a folder that [`store_gallery`] wrote.

    Args:
        folder: The folder.

    Raises:
        FileNotFoundError: If the folder has no gallery.
        ValueError: If the gallery is not complete.
    """

    def __init__(self, folder: str | Path) -> None:
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
    """Returns the arrays of a column: one for each batch that was written."""
    return [chunk for part in parts for chunk in part.column(column).chunks if len(chunk)]


def _mapped(array: Any) -> Tensor:
    """Returns the numbers of an Arrow array of lists as a tensor, without a copy."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given (NumPy array|buffer) is not writable")
        return torch.from_numpy(flat_values(array, array.type.value_type.to_pandas_dtype()))


def store_gallery(
    folder: str | Path, encoder: GalleryEncoder, items: Iterable[Any], shard_bytes: int = SHARD_BYTES
) -> StoredGallery:
    """Encodes images or texts into a folder; items that an interrupted run left there are not encoded again.

    Args:
        folder: The folder; made if it does not exist.
        encoder: Encodes the items.
        items: Images or texts in a form that [`items_of`] takes.
        shard_bytes: Approximate size of a file, which is also what an interrupted run loses. Only a few batches are in
            memory.

    Raises:
        ValueError: If the folder holds something else: another number of items, other strings, paths or files, items
            with other embeddings (a few are compared), or items that another model or processor encoded. Also if it
            was written before galleries recorded their processor, which [`StoredGallery`] still opens.
    """
    check_whole("shard_bytes", shard_bytes)
    if is_written(folder) and "processor" not in read_description(folder):
        raise ValueError(
            f"{folder} is from before galleries recorded their processor, so that nothing can be added to it: "
            "give another folder, or delete this one to start again."
        )
    items = items_of(items, encoder.kind)
    description = describe(encoder)
    description |= {"max_length": encoder.max_length, "content": _content(items, encoder.kind)}
    shards, count = Shards(folder, description), length_hint(items, -1)
    if count >= 0 and (shards.rows > count or shards.complete and shards.rows != count):
        raise ValueError(
            f"{folder} holds {shards.rows:,} {encoder.kind}, and these are {count:,}: give another folder."
        )
    if shards.rows and description["content"] is None:
        items = _check_sample(items, shards, encoder)
    if not shards.complete:
        _fill(shards, encoder.batches(items, skip=shards.rows), shard_bytes)
    return StoredGallery(folder)


def describe(encoder: GalleryEncoder) -> dict[str, Any]:
    """Returns what two galleries must have in common to be searched, or continued, in the same way."""
    config, is_images = encoder.model.config, encoder.kind == "images"
    width = (config.vision_config if is_images else config.text_config).hidden_size
    return {
        "kind": encoder.kind,
        "weights": weights_id(encoder.model),
        "width": width if encoder.keep_states else 0,
        "dtype": str(encoder.model.dtype).removeprefix("torch."),
        "processor": processor_id(encoder.processor, encoder.kind),
    }


def processor_id(processor: CBViLAProcessor, kind: str) -> int:
    """Returns a hash of the preprocessing, equal if images get the same pixel values or texts the same tokens.

    For texts it covers the size of the vocabulary and whether [SEP] is added; for images every setting of the image
    processor that changes pixel values. The image processors with and without torchvision count as equal.
    """
    settings: dict[str, Any]
    if kind == "images":
        known = processor.image_processor.to_dict()
        settings = {k: v for k, v in known.items() if k not in _NOT_OF_PIXELS and v is not None}
    else:
        settings = {"tokens": len(processor.tokenizer), "add_sep_token": processor.add_sep_token}
    return stable_id(json.dumps(settings, sort_keys=True, default=str))


def _content(items: Any, kind: str) -> int | None:
    """Returns a hash of strings or paths (with size and time of the files), or the items' own `fingerprint()`.

    None for anything else, which would have to be decoded.
    """
    if hasattr(items, "fingerprint"):
        return items.fingerprint()
    if not isinstance(items, list | tuple) or not all(isinstance(item, str | os.PathLike) for item in items):
        return None
    return stable_id("\0".join(file_identity(item) if kind == "images" else str(item) for item in items))


def _check_sample(items: Any, shards: Shards, encoder: GalleryEncoder) -> Any:
    """Compares embeddings of a few items with the stored ones; returns the items, generators from their first item."""
    if is_by_position(items):
        places = sorted({0, shards.rows // 2, shards.rows - 1})
        some = [items[place] for place in places]
    else:
        places, items = [0], iter(items)
        some = list(islice(items, 1))
        items = chain(some, items)
    found = replace(encoder, progress=False, keep_states=False).encode(some).embeds
    tolerance = 1e-3 if encoder.model.dtype.itemsize >= 4 else 3e-2
    for place, embeds in zip(places, found, strict=True):
        stored = torch.tensor(shards.values("embeds", place), dtype=embeds.dtype)
        if not torch.allclose(embeds, stored, atol=tolerance, rtol=0):
            raise ValueError(
                f"{shards.folder} holds other items than these, item {place} for one: give another folder, or delete "
                "this one to start again."
            )
    return items


def _fill(shards: Shards, batches: Iterable[Encoded], shard_bytes: int) -> None:
    shards.extend(map(_columns, _joined(batches, min(shard_bytes, _PART_BYTES))), shard_bytes)
    shards.finish()


def _joined(batches: Iterable[Encoded], size: int) -> Iterator[list[Encoded]]:
    """Groups batches to be written together: a search reads what was written together at a time."""
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
    whole = concatenate(batches)
    columns: dict[str, Any] = {"embeds": whole.embeds.numpy()}
    if whole.states:
        stored = _STORED_AS.get(whole.states[0].dtype, whole.states[0].dtype)
        columns["states"] = [states.flatten().view(stored).numpy() for states in whole.states]
    return columns


def save_gallery(folder: Path, description: dict[str, Any], gallery: Gallery, shard_bytes: int = SHARD_BYTES) -> None:
    """Writes a gallery, in place of the one in the folder if any; under a temporary name until it is complete.

    Args:
        folder: The folder; made if it does not exist.
        description: What [`describe`] returns.
        gallery: The gallery.
        shard_bytes: Approximate size of a file.

    Raises:
        ValueError: If the folder holds other files.
    """
    if not is_free(folder) and not is_written(folder):
        raise ValueError(f"{folder} holds other files: give a folder that is empty, or not there yet.")
    unfinished = folder.with_name(f".{folder.name}.unfinished-gallery")  # a name that is unlikely to be in use
    shutil.rmtree(unfinished, ignore_errors=True)
    if isinstance(gallery, StoredGallery):
        shutil.copytree(gallery.folder, unfinished)
    else:
        _fill(Shards(unfinished, description), _parts(gallery), shard_bytes)
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(unfinished, folder)


def _parts(gallery: Gallery, size: int = 64) -> Iterator[Encoded]:
    """Yields a gallery in memory in parts of `size` items."""
    embeds = torch.cat(list(gallery.blocks))
    for start in range(0, len(embeds), size):
        yield Encoded(embeds[start : start + size], gallery.states[start : start + size])
