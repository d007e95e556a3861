"""Copies datasets with blank images, to measure what a model learns from the texts alone."""

import os
import tempfile
from pathlib import Path
from typing import Any

from datasets import Dataset
from PIL import Image

GREY = 128


def blank_copy(source: Path, target: Path) -> None:
    """Copies the Parquet files of a dataset with every image replaced by a grey one of its size.

    Args:
        source: Folder of Parquet files, whose images, if any, are in the column `image`.
        target: The folder to write; kept if it exists.

    Raises:
        ValueError: If `source` has no Parquet files.
    """
    if target.exists():
        return
    files = sorted(source.glob("*.parquet"))
    if not files:
        raise ValueError(f"{source} has no Parquet files. Give the folder of a dataset that has.")
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
