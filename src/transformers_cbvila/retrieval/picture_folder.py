"""Reads and encodes the pictures of a folder, each content once; what cannot be read is left out and named.

Shapes: B pictures of a batch, H height, W width.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..data.image_files import image_files
from ..data.pairs import stable_id
from ..model.image_loading_cbvila import DECODING_ERRORS
from ..model.messages_cbvila import one_line
from ..model.processing_cbvila import CBViLAProcessor
from .encoding import GalleryEncoder
from .gallery import Encoded
from .indexed_items import PictureEntry

_NEVER = -1  # time of change of a file that is to be read again


class EncodedPictures(NamedTuple):
    """Part of the pictures of a folder.

    Args:
        entries: The files that were read, also those that could not be.
        contents: Hashes of the contents that are new.
        encoded: These contents; None if none is new.
    """

    entries: list[PictureEntry]
    contents: list[int]
    encoded: Encoded | None


def pictures_of(folder: str | Path) -> list[PictureEntry]:
    """Returns the pictures of a folder as [`image_files`] finds them, unread, sorted by their paths."""
    found = []
    for file in image_files(folder):
        try:
            status = os.stat(file)
        except OSError:  # removed since
            continue
        found.append(PictureEntry(file.relative_to(folder).as_posix(), status.st_size, status.st_mtime_ns))
    return found


def encode_pictures(
    folder: Path, pictures: Sequence[PictureEntry], encoder: GalleryEncoder, known: set[int]
) -> Iterator[EncodedPictures]:
    """Encodes pictures, batch by batch, with a progress bar.

    Args:
        folder: Their folder.
        pictures: The files.
        encoder: Encodes them.
        known: Hashes of contents that are encoded already; those that are new are added.
    """
    entries: list[PictureEntry] = []
    contents: list[int] = []
    pixels: list[Tensor] = []
    for picture in tqdm(pictures, desc="Encoding images", disable=not encoder.progress):
        entry, values = _read(folder, picture, encoder.processor, known)
        entries.append(entry)
        if values is not None and entry.content is not None:
            known.add(entry.content)
            contents.append(entry.content)
            pixels.append(values)
        if len(pixels) == encoder.batch_size:
            yield EncodedPictures(entries, contents, encoder.encode_pixels(torch.cat(pixels)))
            entries, contents, pixels = [], [], []
    if entries:
        yield EncodedPictures(entries, contents, encoder.encode_pixels(torch.cat(pixels)) if pixels else None)


def _read(
    folder: Path, picture: PictureEntry, processor: CBViLAProcessor, known: set[int]
) -> tuple[PictureEntry, Tensor | None]:
    """Returns what a file is, and its pixel values (1, 3, H, W) if its content is new and can be read."""
    try:
        # hash and pixels of the same bytes, whatever happens to the file meanwhile
        file = (folder / picture.file_name).read_bytes()
    except OSError as error:  # such as rights, which may be others next time although the file is the same
        return replace(picture, mtime_ns=_NEVER, error=error.strerror or type(error).__name__), None
    content = stable_id(file)
    if content in known:
        return replace(picture, content=content), None
    try:
        # one at a time, so that only one decoded picture of any size is in memory
        values = processor(images=[file], return_tensors="pt")["pixel_values"]
    except DECODING_ERRORS as error:
        return replace(picture, error=one_line(str(error), 200) or type(error).__name__), None
    return replace(picture, content=content), values
