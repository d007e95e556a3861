"""Visual words of data sets as Parquet files, which several processes write and an interrupted run continues.

File b holds rows b · n to (b + 1) · n - 1, whoever writes it, so that its content depends on nothing else. It has a
temporary name until it is complete.

Shapes: N patches, R books.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..data.bad_rows import BadRowError, reason
from ..data.image_rows import ImageRow, ImageRows
from ..extras import require
from ..model.messages_cbvila import shown
from ..output_files import write_json
from ..output_folders import UNFINISHED, is_free, remove_unfinished, require_same_description
from ..retrieval.encoding import evaluating, pixel_values_of
from ..retrieval.gallery_identity import processor_id, weights_id

DESCRIPTION = "tokens.json"


def describe_tokens(model: Any, processor: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what files of visual words have in common, as JSON values.

    Args:
        model: The model.
        processor: Its processor.
        options: What else must be the same to go on: the data, its split, rows of a file and so on.

    Raises:
        ValueError: If the model has no codebook.
    """
    return {
        **options,
        "book_sizes": list(model.cbvila.require_quantizer().book_sizes),
        "weights": weights_id(model),
        "processor": processor_id(processor, "images"),
    }


def start_folder(folder: str | Path, description: Mapping[str, Any]) -> None:
    """Writes the description into a new folder, or clears what an interrupted run left; the main process calls it.

    A folder in which a run has not completed a file yet is as good as a new one: any options are taken.

    Raises:
        ValueError: If the folder holds something else.
    """
    folder = Path(folder)
    if is_free(folder) or _is_without_files(folder, description):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / DESCRIPTION, dict(description))
    check_folder(folder, description)
    remove_unfinished(folder)


def _is_without_files(folder: Path, description: Mapping[str, Any]) -> bool:
    """Returns whether a folder holds a description like this one, and at most files that are not complete."""
    if not folder.is_dir() or not all(
        file.name == DESCRIPTION or file.name.endswith(UNFINISHED) for file in folder.iterdir()
    ):
        return False
    return read_tokens_description(folder).keys() == description.keys()


def check_folder(folder: str | Path, description: Mapping[str, Any]) -> None:
    """Checks that a folder is to hold what `description` says.

    Raises:
        ValueError: If it does not; the message names the difference.
    """
    require_same_description(folder, read_tokens_description(folder), description)


def read_tokens_description(folder: str | Path) -> dict[str, Any]:
    """Returns the description of a folder of visual words.

    Raises:
        ValueError: If it is none.
    """
    file = Path(folder, DESCRIPTION)
    if not file.is_file():
        raise ValueError(
            f"{shown(str(folder), 255)} is no folder that cbvila tokenize wrote: it has no {DESCRIPTION}."
        )
    return json.loads(file.read_text(encoding="utf-8"))


def token_files(folder: str | Path) -> list[Path]:
    """Returns the complete files of a folder in the order of their rows."""
    return sorted(Path(folder).glob("tokens-*.parquet"))


@dataclass
class TokenWriter:
    """Writes the visual words of images into a folder.

    Attributes:
        model: A model with a codebook.
        processor: Its processor.
        folder: The folder, as [`start_folder`] left it.
        rows_per_file: Rows of each file, which is also what an interrupted run loses.
        batch_size: Images at a time; files are the same only with the same one.
        skip_bad_rows: Whether to leave out images that cannot be read, with the reasons in `skipped`.
    """

    model: Any
    processor: Any
    folder: Path
    rows_per_file: int = 1000
    batch_size: int = 64
    skip_bad_rows: bool = False
    skipped: list[str] = field(default_factory=list)

    def write(self, rows: ImageRows, process: int = 0, processes: int = 1) -> int:
        """Writes the files of one of several processes that are not there yet; returns the number of rows written.

        Raises:
            ValueError: If an image cannot be read; the message names the row.
        """
        written, total = 0, rows.count if processes == 1 else None
        with tqdm(total=total, desc="Tokenizing", unit="row", disable=process != 0) as bar:
            for number, block in rows.blocks(
                self.rows_per_file, lambda block: self._is_wanted(block, process, processes)
            ):
                found = list(self._tokenized(block))
                self._write_file(number, found)
                written += len(found)
                bar.update(len(block))
        return written

    def _is_wanted(self, block: int, process: int, processes: int) -> bool:
        return block % processes == process and not self._file(block).exists()

    def _file(self, block: int) -> Path:
        return self.folder / f"tokens-{block:06d}.parquet"

    def _tokenized(self, block: list[ImageRow]) -> Iterator[dict[str, Any]]:
        """Yields rows of a file; batches begin with the block, so that they are the same in every run."""
        for start in range(0, len(block), self.batch_size):
            rows, images = list[ImageRow](), list[Any]()
            for row in block[start : start + self.batch_size]:
                try:
                    images.append(row.decoded())
                    rows.append(row)
                except BadRowError as error:
                    if not self.skip_bad_rows:
                        raise
                    self.skipped.append(reason(error))
            if not images:
                continue
            with evaluating(self.model):
                pixel_values = pixel_values_of(self.model, self.processor, images)
                indices = self.model.tokenize(pixel_values).flatten(1).cpu()
            grid = list(self.model.patch_grid(pixel_values))
            for row, tokens in zip(rows, indices.tolist(), strict=True):
                yield {"row": row.number, "source": row.name, "grid": grid, "ids": tokens}

    def _write_file(self, block: int, rows: list[dict[str, Any]]) -> None:
        arrow, parquet = require("pyarrow"), require("pyarrow.parquet")
        schema = arrow.schema(
            {
                "row": arrow.int64(),
                "source": arrow.string(),
                "grid": arrow.list_(arrow.int32(), 2),
                "ids": arrow.list_(arrow.int32()),
            }
        )
        unfinished = self._file(block).with_name(self._file(block).name + UNFINISHED)
        parquet.write_table(arrow.Table.from_pylist(rows, schema=schema), unfinished)
        os.replace(unfinished, self._file(block))


def read_tokens(folder: str | Path) -> Iterator[list[dict[str, Any]]]:
    """Yields the rows of each file of a folder: `row`, `source`, `grid` and `ids`, which are R numbers for each patch.

    Raises:
        ValueError: If it is no such folder.
    """
    read_tokens_description(folder)
    parquet = require("pyarrow.parquet")
    for file in token_files(folder):
        yield parquet.read_table(file).to_pylist()


def ids_of(rows: list[dict[str, Any]], books: int) -> Tensor:
    """Returns the ids of rows as `model.detokenize` takes them: (B, N), or (B, N, R) with several books."""
    ids = torch.tensor([row["ids"] for row in rows])
    return ids if books == 1 else ids.unflatten(1, (-1, books))
