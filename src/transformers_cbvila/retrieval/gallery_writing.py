"""Writes galleries to disk, in parts of a bounded size, so that an interrupted run can be resumed."""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, islice
from operator import length_hint
from pathlib import Path
from typing import Any

import torch

from ..model.item_lists_cbvila import is_by_position, items_of
from ..model.number_checks_cbvila import check_whole
from ..output_folders import is_free
from .encoding import GalleryEncoder
from .gallery import Encoded, Gallery, concatenate
from .gallery_identity import content_id, describe
from .indexed_items import IndexedItems, write_items
from .shards import Shards, is_written, read_description
from .stored_gallery import StoredGallery

SHARD_BYTES = 2**25  # per file of a gallery
_PART_BYTES, _PART_ROWS = 2**22, 1000  # per write
# Arrow has no bfloat16: its bits are stored as integers.
_STORED_AS = {torch.bfloat16: torch.int16}


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
    description |= {"content": content_id(items, encoder.kind), "max_length": encoder.max_length}
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
    shards.extend(map(columns_of, _joined(batches, min(shard_bytes, _PART_BYTES))), shard_bytes)
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


def columns_of(batches: list[Encoded]) -> dict[str, Any]:
    """Returns the columns of shards in which a gallery is stored, for consecutive parts of it."""
    whole = concatenate(batches)
    columns: dict[str, Any] = {"embeds": whole.embeds.numpy()}
    if whole.states:
        stored = _STORED_AS.get(whole.states[0].dtype, whole.states[0].dtype)
        columns["states"] = [states.flatten().view(stored).numpy() for states in whole.states]
    return columns


def save_gallery(
    folder: Path,
    description: dict[str, Any],
    gallery: Gallery,
    items: IndexedItems | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes a gallery, in place of the one in the folder if any; under a temporary name until it is complete.

    Args:
        folder: The folder; made if it does not exist.
        description: What [`describe`] returns.
        gallery: The gallery.
        items: Names and metadata of its items, if they have some.
        shard_bytes: Approximate size of a file.

    Raises:
        ValueError: If the folder holds other files.
    """
    with _replaced(folder) as unfinished:
        _fill(Shards(unfinished, description), _parts(gallery), shard_bytes)
        write_items(unfinished, items or IndexedItems())


def copy_gallery(folder: Path, source: Path) -> None:
    """Copies the folder of a gallery, see [`save_gallery`]."""
    with _replaced(folder) as unfinished:
        shutil.copytree(source, unfinished)


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """Gives the path of a folder that takes the place of a gallery, or of nothing, once the block is done."""
    if not is_free(folder) and not is_written(folder):
        raise ValueError(f"{folder} holds other files: give a folder that is empty, or not there yet.")
    unfinished = folder.with_name(f".{folder.name}.unfinished-gallery")  # a name that is unlikely to be in use
    shutil.rmtree(unfinished, ignore_errors=True)
    yield unfinished
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(unfinished, folder)


def _parts(gallery: Gallery, size: int = 64) -> Iterator[Encoded]:
    """Yields a gallery in parts of about `size` items."""
    first = 0
    for embeds in (part for block in gallery.blocks for part in block.split(size)):
        rows = range(first, first + len(embeds)) if len(gallery.states) else ()
        yield Encoded(embeds, [gallery.states[row] for row in rows])
        first += len(embeds)
