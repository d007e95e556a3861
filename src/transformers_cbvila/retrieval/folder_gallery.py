"""Galleries of the pictures of a folder, in memory or on disk, where they follow the folder.

On disk embeddings are found by a hash of the pictures' bytes: a picture that is new, or whose size or time is another
one, is read, and encoded if no picture had the same bytes. So nothing that is written is lost when a run is killed,
and what was moved, renamed or copied is not encoded again. What the pictures are called is in `items.jsonl`, which
grows with each file of embeddings, and is written anew at the end.
"""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from ..data.image_metadata import metadata_of_images
from ..model.messages_cbvila import shown
from ..model.number_checks_cbvila import check_whole
from .encoding import GalleryEncoder
from .faiss_index import FAISS_FILE
from .folder_parts import part_folder, take_parts
from .gallery import Encoded, Gallery, concatenate
from .gallery_identity import describe
from .gallery_writing import SHARD_BYTES, columns_of
from .indexed_items import (
    IndexedItems,
    PictureEntry,
    append_entries,
    metadata_by_file,
    read_entries,
    write_entries,
)
from .picture_folder import EncodedPictures, encode_pictures, pictures_of
from .selected_gallery import SelectedGallery
from .shards import Shards, flat_values, is_written, read_description, tables
from .stored_gallery import StoredGallery

logger = logging.get_logger(__name__)

_KIND = "pictures of a folder"  # in the description of such a gallery
_SECONDS = 30.0  # about how often what was encoded is written
_NAMED = 5  # pictures that a message names
Metadata = dict[str, dict[str, Any]]


def encode_folder(pictures: str | Path, encoder: GalleryEncoder, metadata: Any = None) -> tuple[Gallery, IndexedItems]:
    """Encodes the pictures of a folder into memory.

    Args:
        pictures: The folder; see [`pictures_of`].
        encoder: Encodes them.
        metadata: Dictionaries with `file_name` and other columns, instead of the folder's metadata files.

    Raises:
        ValueError: If there is no picture, none can be read, or the metadata are no such dictionaries.
    """
    check_whole("batch_size", encoder.batch_size)
    found = pictures_of(pictures)
    described = _metadata(pictures, found, metadata)
    parts = list(encode_pictures(Path(pictures), found, encoder, set()))
    entries = [entry for part in parts for entry in part.entries]
    _check_some_readable(pictures, entries)
    _warn_of_unreadable(pictures, entries)
    encoded = concatenate(part.encoded for part in parts if part.encoded is not None)
    rows = _rows(entries, [content for part in parts for content in part.contents])
    states = [encoded.states[row] for row in rows] if encoded.states else []
    return Encoded(encoded.embeds[rows], states), _items(Path(pictures), entries, described)


def store_folder(
    pictures: str | Path, folder: str | Path, encoder: GalleryEncoder, shard_bytes: int, metadata: Any = None
) -> tuple[Gallery, IndexedItems]:
    """Encodes the pictures of a folder into another one, or only what is not there yet.

    Args:
        pictures: The folder of pictures; see [`pictures_of`].
        folder: The folder of the gallery; made if it does not exist.
        encoder: Encodes what is new.
        shard_bytes: Approximate size of a file.
        metadata: See [`encode_folder`].

    Raises:
        ValueError: As of [`encode_folder`], and if the gallery is of another folder that is still there, of something
            else, or was encoded by another model or processor.
    """
    check_whole("shard_bytes", shard_bytes)
    check_whole("batch_size", encoder.batch_size)
    found, folder, root = pictures_of(pictures), Path(folder), Path(os.path.abspath(pictures))
    described = _metadata(pictures, found, metadata)
    if is_written(folder):
        _check_root(folder, root)
    shards = _opened(folder, encoder)
    before, metadata_before = read_entries(folder)
    there = set(stored_contents(folder))
    changed = _changed(found, before, there)
    if changed or not shards.complete:
        shards.describe(root=str(root), complete=False)
        write_entries(folder, before.values(), metadata_before)  # without a line that a killed run left unfinished
        _add(shards, encode_pictures(root, changed, encoder, there), shard_bytes)
    known, _ = read_entries(folder)
    entries = [known[picture.file_name] for picture in found]
    _check_some_readable(pictures, entries)
    _warn_of_unreadable(pictures, entries)
    if entries != list(before.values()):
        (folder / FAISS_FILE).unlink(missing_ok=True)  # it has the rows of before
    elif shards.complete and described == metadata_before and read_description(folder)["root"] == str(root):
        return open_folder(folder, Path(pictures))
    write_entries(folder, entries, described)
    contents = [entry.content for entry in entries if entry.content is not None]
    shards.thin_out(lambda table: np.isin(_contents(table), contents))
    shards.describe(root=str(root), complete=True)
    return open_folder(folder, Path(pictures))


def start_parts(pictures: str | Path, folder: str | Path, encoder: GalleryEncoder) -> None:
    """Makes the folder of a gallery that several processes fill; one of them calls it, and the others wait for it.

    Args:
        pictures: The folder of pictures.
        folder: The folder of the gallery.
        encoder: Encodes what is new.

    Raises:
        ValueError: As of [`store_folder`].
    """
    folder = Path(folder)
    if is_written(folder):
        _check_root(folder, Path(os.path.abspath(pictures)))
    _opened(folder, encoder)


def encode_part(
    pictures: str | Path,
    folder: str | Path,
    encoder: GalleryEncoder,
    process: int,
    processes: int,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Encodes what a process shares of the pictures that a gallery lacks; [`store_folder`] then takes all parts.

    Args:
        pictures: The folder of pictures.
        folder: The folder of the gallery, after [`start_parts`].
        encoder: Encodes what is new.
        process: Number of this process, counted from 0.
        processes: How many there are.
        shard_bytes: Approximate size of a file.
    """
    folder, root = Path(folder), Path(os.path.abspath(pictures))
    there = set(stored_contents(folder))
    share = _changed(pictures_of(pictures), read_entries(folder)[0], there)[process::processes]
    if share:
        part = Shards(part_folder(folder, process), describe(encoder) | {"content": _KIND})
        _add(part, encode_pictures(root, share, encoder, there), shard_bytes)


def _opened(folder: Path, encoder: GalleryEncoder) -> Shards:
    """Returns the shards of a gallery, with those that processes of this or of a killed run have left."""
    shards = Shards(folder, describe(encoder) | {"content": _KIND})
    take_parts(shards)
    return shards


def open_folder(folder: Path, root: Path | None = None) -> tuple[Gallery, IndexedItems]:
    """Opens what [`store_folder`] wrote.

    Args:
        folder: The folder of the gallery.
        root: The folder of the pictures; by default where they were.
    """
    stored = StoredGallery(folder)
    entries, metadata = read_entries(folder)
    rows = _rows(entries.values(), stored_contents(folder))
    items = _items(root or Path(stored.description["root"]), list(entries.values()), metadata)
    return SelectedGallery(stored, torch.tensor(rows)), items


def is_of_folder(folder: str | Path) -> bool:
    """Returns whether [`store_folder`] wrote a gallery."""
    return read_description(folder).get("content") == _KIND


def stored_contents(folder: Path) -> list[int]:
    """Returns the hash of the picture in each row of a stored gallery."""
    return [content for table in tables(folder) for content in _contents(table).tolist()]


def _contents(table: Any) -> np.ndarray:
    chunks = [flat_values(chunk, np.int64) for chunk in table.column("contents").chunks if len(chunk)]
    return np.concatenate(chunks) if chunks else np.empty(0, dtype=np.int64)


def _metadata(folder: str | Path, pictures: list[PictureEntry], given: Any) -> Metadata:
    """Returns the metadata of pictures by file name, each with its name."""
    names = [picture.file_name for picture in pictures]
    if given is None:
        root = Path(os.path.abspath(folder))
        read = metadata_of_images(root)
        rows: Mapping[str, Any] = {name: read.get(str(root / name), {}) for name in names}
    else:
        rows = metadata_by_file(given, names)
    return {name: {**rows.get(name, {}), "file_name": name} for name in names}


def _check_root(folder: Path, root: Path) -> None:
    """Checks that a gallery isn't of another folder of pictures; one that is gone has been moved."""
    before = read_description(folder).get("root")
    if before is not None and Path(before) != root and Path(before).is_dir() and not root.samefile(before):
        raise ValueError(
            f"{folder} is the index of {shown(before, 255)}, and these pictures are in {shown(str(root), 255)}: give "
            "another folder, or delete this one to start again."
        )


def _changed(found: list[PictureEntry], before: Mapping[str, PictureEntry], contents: set[int]) -> list[PictureEntry]:
    """Returns the pictures that have to be read."""
    return [picture for picture in found if not _is_known(before.get(picture.file_name), picture, contents)]


def _is_known(entry: PictureEntry | None, picture: PictureEntry, contents: set[int]) -> bool:
    if entry is None or not entry.is_of(picture):
        return False
    return entry.error is not None or entry.content in contents


def _add(shards: Shards, parts: Iterator[EncodedPictures], shard_bytes: int) -> None:
    """Writes what was encoded into files of about `shard_bytes`, or of what comes in half a minute."""
    waiting, held, since = list[EncodedPictures](), 0, time.monotonic()
    for part in parts:
        waiting.append(part)
        if part.encoded is not None:
            held += part.encoded.embeds.nbytes + sum(states.nbytes for states in part.encoded.states)
        if held >= shard_bytes or time.monotonic() - since >= _SECONDS:
            _write(shards, waiting)
            waiting, held, since = [], 0, time.monotonic()
    _write(shards, waiting)


def _write(shards: Shards, parts: Iterable[EncodedPictures]) -> None:
    encoded = [part.encoded for part in parts if part.encoded is not None]
    if encoded:
        contents = np.array([content for part in parts for content in part.contents], dtype=np.int64)
        shards.append({**columns_of(encoded), "contents": contents})
    append_entries(shards.folder, [entry for part in parts for entry in part.entries])


def _rows(entries: Iterable[PictureEntry], contents: Iterable[int]) -> list[int]:
    """Returns the row of each picture that could be read."""
    row_of = {content: row for row, content in enumerate(contents)}
    return [row_of[entry.content] for entry in entries if entry.content is not None]


def _items(root: Path, entries: Iterable[PictureEntry], metadata: Mapping[str, Mapping[str, Any]]) -> IndexedItems:
    readable = [entry.file_name for entry in entries if entry.error is None]
    return IndexedItems(
        files=[root / name for name in readable],
        metadata=[{**metadata.get(name, {}), "file_name": name} for name in readable],
        left_out={root / entry.file_name: entry.error for entry in entries if entry.error is not None},
    )


def _check_some_readable(folder: str | Path, entries: list[PictureEntry]) -> None:
    if all(entry.error is not None for entry in entries):
        raise ValueError(
            f"None of the {len(entries):,} pictures of {shown(str(folder), 255)} can be read, such as "
            f"{entries[0].file_name}: {entries[0].error}."
        )


def _warn_of_unreadable(folder: str | Path, entries: Iterable[PictureEntry]) -> None:
    errors = [f"{entry.file_name}: {entry.error}" for entry in entries if entry.error is not None]
    if errors:
        more = "; …" if len(errors) > _NAMED else ""
        logger.warning(
            f"{len(errors):,} of the pictures of {shown(str(folder), 255)} cannot be read and "
            f"{'is' if len(errors) == 1 else 'are'} left out ({'; '.join(errors[:_NAMED])}{more})."
        )
