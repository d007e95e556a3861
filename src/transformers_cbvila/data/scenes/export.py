"""Writes scenes to Parquet files, with images and label maps as PNG, for other tools."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ...extras import require
from .scene_rows import SceneRows
from .tables import features_of

if TYPE_CHECKING:
    from datasets import Features

_ROWS_PER_GROUP = 1_000  # of the file; so many are in memory


def export_scenes(rows: SceneRows, output_dir: str | Path) -> Path:
    """Writes the rows of a split for a task, with everything that is true of them, to `output_dir/SPLIT.parquet`.

    The folder can be read as a source, and by `datasets.load_dataset`.

    Args:
        rows: The rows.
        output_dir: The folder; it is made if it is not there.

    Returns:
        The file.
    """
    datasets, parquet = require("datasets"), require("pyarrow.parquet")
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    file, unfinished = folder / f"{rows.split}.parquet", folder / f"{rows.split}.parquet.unfinished"
    features = _features(rows)
    with parquet.ParquetWriter(unfinished, features.arrow_schema) as writer:
        for start in range(0, len(rows), _ROWS_PER_GROUP):
            records = list(_records(rows, range(start, min(start + _ROWS_PER_GROUP, len(rows)))))
            columns = {name: [record[name] for record in records] for name in features}
            writer.write_table(datasets.Dataset.from_dict(columns, features=features).data.table)
    unfinished.replace(file)
    return file


def _features(rows: SceneRows) -> Features:
    """Returns the columns of a table of scenes, with label maps and graphs."""
    datasets = require("datasets")
    features = features_of(rows)
    number, text, flag = datasets.Value("int32"), datasets.Value("string"), datasets.Value("bool")
    same = {"same_shape": flag, "same_color": flag, "same_size": flag}
    graph = datasets.List({"first": number, "second": number, "relation": text, **same})
    one = len(rows.scenes(0)) == 1
    labels = datasets.Image()
    more = {"label_map": labels if one else datasets.List(labels), "graph": graph if one else datasets.List(graph)}
    return datasets.Features(**features, **more)


def _records(rows: SceneRows, numbers: range) -> Iterator[dict[str, Any]]:
    images = list(rows.scenes(0))
    for number in numbers:
        row = rows[number]
        maps = row["label_map"]
        labels = _labels(maps) if isinstance(maps, np.ndarray) else list(map(_labels, maps))
        yield {**row, **{name: _png(row[name]) for name in images}, "label_map": labels}


def _labels(label_map: np.ndarray) -> dict[str, Any]:
    return _png(Image.fromarray(label_map))


def _png(image: Image.Image) -> dict[str, Any]:
    file = BytesIO()
    image.save(file, "PNG")
    return {"path": None, "bytes": file.getvalue()}
