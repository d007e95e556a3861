"""The files of a source, their kind and their splits. A path that exists is itself, pattern or not."""

from __future__ import annotations

import glob
import os
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from ..extras import require
from ..model.messages_cbvila import shown
from .builtin_sources import find_builtin
from .images import IMAGE_ENDINGS, is_image_file

TABLES = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
}
_KINDS = {**TABLES, ".tar": "tar", ".tgz": "tar", ".zip": "zip", **dict.fromkeys(IMAGE_ENDINGS, "images")}
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".lz4")  # unpacked while they are read
_METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")  # they describe the images beside them
_READABLE = f"{', '.join(TABLES)}, .tar (all these as .gz, too), .zip, or images"
_CARD = "README.md"


@dataclass(frozen=True)
class SourceFiles:
    """The files of a local source.

    Args:
        name: The source as given.
        kind: "parquet", "arrow", "json", "csv", "tsv", "tar" or "images"; "rows" or "splits" for what `save_to_disk`
            wrote; "card" for a folder whose README.md says what is in it.
        splits: Files by split; the split "" has files that go by any name.
        folder: The folder that paths of images are relative to; None for files of several folders.
    """

    name: str
    kind: str
    splits: Mapping[str, Sequence[str]]
    folder: str | None

    @property
    def split_names(self) -> list[str] | None:
        """Names of the splits; None if files go by any name."""
        return None if set(self.splits) == {""} else list(self.splits)

    @property
    def files(self) -> list[str]:
        """The files of all splits."""
        return [file for files in self.splits.values() for file in files]


def find_source(source: str) -> SourceFiles | None:
    """Returns the files that a source names; None if it is built in, or can only be the id of a dataset of the Hub.

    Raises:
        FileNotFoundError: If it can only be a path, and isn't there.
        ValueError: If it is there, but of no kind that can be read; the message lists these kinds.
    """
    if find_builtin(source) is not None:
        return None
    # os.path says of impossible names, such as too long ones, that they are not there
    path = source if os.path.exists(source) else os.path.expanduser(source)
    if os.path.isdir(path):
        return _of_folder(source, Path(path))
    files = [path] if os.path.exists(path) else _matches(path)
    if files:
        return _of_files(source, files)
    if _can_only_be_a_path(source):
        raise FileNotFoundError(
            f"{shown_name(source)} isn't there: give a file, a pattern of files, a folder or a Hub id."
        )
    return None


def shown_name(source: str) -> str:
    """Returns a source as messages name it: as given, or shortened."""
    return source if len(source) <= 300 and "\n" not in source else shown(source)


def is_metadata(path: str) -> bool:
    """Whether a file describes the images beside it."""
    return os.path.basename(path).lower() in _METADATA


def kind_of(path: str) -> str | None:
    """Returns the kind of a file by its ending, in any case, compressed or not; None if it can't be read."""
    stem, ending = os.path.splitext(path.lower())
    if ending in _COMPRESSED:
        ending = os.path.splitext(stem)[1]
        return None if ending not in (*TABLES, ".tar") else _KINDS[ending]
    return _KINDS.get(ending)


def passed_over(source: str, reads: Sequence[str]) -> list[str]:
    """Returns files with rows in the folder of a source that are not among those it `reads`, metadata first."""
    folders = os.walk(os.path.abspath(os.path.expanduser(source)))
    inside = (os.path.join(where, name) for where, _, names in folders for name in sorted(names))
    taken = set(map(os.path.abspath, reads))
    rows = [file for file in inside if kind_of(file) in TABLES.values() and file not in taken]
    return sorted(rows, key=lambda file: not is_metadata(file))


def _of_files(source: str, files: Sequence[str]) -> SourceFiles:
    kinds = {kind_of(file) for file in files}
    if None in kinds:
        file = next(file for file in files if kind_of(file) is None)
        raise ValueError(
            f"{shown_name(file)} is there, but its ending is none of those that can be read: {_READABLE}. Give it the "
            "ending of what it holds, or name another file, a folder or a Hub id."
        )
    if len(kinds) > 1:
        raise ValueError(
            f"{shown_name(source)} names files of several kinds ({', '.join(sorted(map(str, kinds)))}); name those of "
            "one kind, such as *.parquet, and the others as a source of their own."
        )
    if kinds == {"zip"}:
        return _of_archives(source, files, any_split=True)
    folders = {os.path.dirname(file) for file in files}
    if kinds == {"images"}:
        texts = [os.path.splitext(file)[0] + ".txt" for file in files]
        files = [*files, *filter(os.path.isfile, texts)]
    return SourceFiles(source, str(kinds.pop()), {"": files}, folders.pop() if len(folders) == 1 else None)


def _of_folder(source: str, path: Path) -> SourceFiles:
    folder = str(path)
    if (path / "dataset_dict.json").is_file():
        return SourceFiles(source, "splits", {}, folder)
    if (path / "dataset_info.json").is_file() and (path / "state.json").is_file():
        return SourceFiles(source, "rows", {"": []}, folder)
    card = path / _CARD
    if card.is_file() and "\nconfigs:" in card.read_text(encoding="utf-8", errors="replace"):
        return SourceFiles(source, "card", {}, folder)
    splits = {split: files for split, files in _files_by_split(folder) if files}
    kinds = Counter(kind for files in splits.values() for file in files if (kind := _kind_in_folder(file)))
    if not kinds:
        raise ValueError(f"{shown_name(source)} is a folder with no file that can be read; readable are {_READABLE}.")
    # if equally many, files with rows first, and archives before a metadata file that describes their content
    kind = max(kinds, key=lambda kind: (kinds[kind], kind == "parquet", kind in TABLES.values(), kind == "zip"))
    if kind == "zip":
        return _of_archives(source, [file for files in splits.values() for file in files if kind_of(file) == kind])
    wanted = {split: [file for file in files if _belongs(file, kind)] for split, files in splits.items()}
    return SourceFiles(source, kind, {split: files for split, files in wanted.items() if files}, folder)


def _kind_in_folder(file: str) -> str | None:
    """Returns the kind of folder that a file implies: metadata imply images, even if these are elsewhere."""
    return "images" if is_metadata(file) else kind_of(file)


def _belongs(file: str, kind: str) -> bool:
    if kind == "images":  # and what describes them
        return is_image_file(file) or is_metadata(file) or file.lower().endswith(".txt")
    return kind_of(file) == kind


def _of_archives(source: str, archives: Sequence[str], any_split: bool = False) -> SourceFiles:
    """Returns the content of .zip files as a folder, unpacked once into the cache of `datasets`."""
    datasets = require("datasets")
    try:
        folders = [datasets.DownloadManager().extract(os.path.abspath(archive)) for archive in archives]
        inside = [_of_folder(source, Path(folder)) for folder in folders]
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{shown_name(source)} cannot be read: {error}") from error
    kinds = {found.kind for found in inside}
    if len(kinds) > 1:
        raise ValueError(f"{shown_name(source)} has .zip files of several kinds ({', '.join(sorted(kinds))}).")
    splits: dict[str, list[str]] = {}
    for found in inside:
        for split, files in found.splits.items():
            splits.setdefault("" if any_split and list(found.splits) == ["train"] else split, []).extend(files)
    return SourceFiles(source, kinds.pop(), splits, folders[0] if len(folders) == 1 else None)


def _files_by_split(folder: str) -> Iterator[tuple[str, list[str]]]:
    """Yields the files of a folder by split; `datasets` finds splits by the names of folders and files."""
    data_files = require("datasets.data_files")
    base = glob.escape(os.path.abspath(folder))
    try:
        patterns = data_files.get_data_patterns(base)
    except FileNotFoundError:
        return
    for split, of_split in patterns.items():
        yield str(split), sorted({file for pattern in of_split for file in _resolved(data_files, pattern, base)})


def _resolved(data_files: ModuleType, pattern: str, base: str) -> list[str]:
    try:
        return data_files.resolve_pattern(pattern, base)
    except FileNotFoundError:
        return []


def _matches(pattern: str) -> list[str]:
    return [file for file in sorted(glob.glob(pattern, recursive=True)) if os.path.isfile(file)]


def _can_only_be_a_path(source: str) -> bool:
    name = source.partition("@")[0]
    return (
        os.path.isabs(source)
        or name.startswith((".", "~"))
        or name.count("/") > 1
        or "\\" in source
        or glob.has_magic(source)
        or len(source) > 300
        or kind_of(source) is not None
    )
