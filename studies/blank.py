"""Copies of a pack whose pictures are blank: what a model learns of them it has from the texts alone."""

import os
import tempfile
from pathlib import Path
from typing import Any

from datasets import Dataset
from PIL import Image

GREY = 128


def blank_copy(source: Path, target: Path) -> None:
    """Writes a pack's Parquet files again, every picture a grey one of its size; a copy that is there is kept.

    Args:
        source: Folder of Parquet files, whose pictures, if any, are in the column `image`.
        target: The folder to write.

    Raises:
        ValueError: `source` has no Parquet files.
    """
    if target.exists():
        return
    files = sorted(source.glob("*.parquet"))
    if not files:
        raise ValueError(f"{source} has no Parquet files. Name the folder that holds the packs.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as unfinished:
        copy = Path(unfinished, target.name)
        copy.mkdir()
        for file in files:
            rows = Dataset.from_parquet(str(file), cache_dir=str(Path(unfinished, "cache")))
            blank = rows.map(_blank, keep_in_memory=True) if "image" in rows.column_names else rows
            blank.to_parquet(str(copy / file.name))
        os.replace(copy, target)


def _blank(row: dict[str, Any]) -> dict[str, Any]:
    return {"image": Image.new("RGB", row["image"].size, (GREY, GREY, GREY))}
