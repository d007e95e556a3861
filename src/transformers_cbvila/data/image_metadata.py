"""What the metadata files of a folder say of its images."""

import json
import os
from pathlib import Path
from typing import Any

from ..model.messages_cbvila import one_line
from .images import image_columns, locate
from .source_files import is_metadata, kind_of
from .tables import load_tables


def metadata_of_images(folder: str | Path) -> dict[str, dict[str, Any]]:
    """Reads the metadata files (metadata.jsonl, .csv or .parquet) of a folder and its subfolders but for hidden ones.

    Args:
        folder: The folder.

    Returns:
        For the absolute path of each image that they name, its columns as they are written: all of a CSV file are
        texts. Values that JSON does not have, such as dates, are texts.

    Raises:
        ValueError: If a metadata file cannot be read; the message names it.
    """
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(Path(folder).rglob("metadata.*")):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if is_metadata(str(file)) and file.is_file() and not hidden:
            found |= _of_file(file)
    return found


def _of_file(file: Path) -> dict[str, dict[str, Any]]:
    try:
        table = load_tables(str(kind_of(str(file))), {"train": [str(file)]}, "train", streaming=False)
    except ImportError:
        raise
    except Exception as error:  # readers of tables raise errors of many packages
        reason = one_line(str(error.__cause__ or error), 300) or type(error).__name__
        raise ValueError(f"{file} cannot be read: {reason}.") from error
    columns, found = image_columns(table.column_names), {}
    for row in table:
        values = json.loads(json.dumps(row, default=str))
        for name in columns:
            if row[name]:
                found[os.path.abspath(locate(str(row[name]), str(file.parent)))] = values
    return found
