"""Pictures drawn from files of visual words."""

import os
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import Image

from ..model.drawn_images_cbvila import to_pictures
from ..output_files import write_json_lines
from ..retrieval.encoding import evaluating
from ..retrieval.gallery_identity import weights_id
from .token_files import ids_of, read_tokens, read_tokens_description


def draw_tokens(
    folder: str | Path,
    output: str | Path,
    model: Any,
    processor: Any,
    batch_size: int = 64,
    process: int = 0,
    processes: int = 1,
) -> int:
    """Draws each row of a folder of visual words as a PNG file, with an empty caption.

    Args:
        folder: What `cbvila tokenize` wrote.
        output: Folder for the pictures, `row-000000000.png` and so on; those that are there are left.
        model: The model that the words are of.
        processor: Its processor.
        batch_size: Pictures at a time.
        process: Which of several processes this is; each draws the rows of every n-th file.
        processes: Number of processes.

    Returns:
        The number of pictures drawn.

    Raises:
        ValueError: If it is no such folder, the words are of another model, or the model cannot draw from codes alone.
    """
    description = read_tokens_description(folder)
    if description["weights"] != weights_id(model):
        raise ValueError(
            f"{folder} was written with other weights than these: name the model that wrote it "
            f"({description['model']})."
        )
    Path(output).mkdir(parents=True, exist_ok=True)
    books, drawn = len(description["book_sizes"]), 0
    for number, rows in enumerate(read_tokens(folder)):
        if number % processes != process:
            continue
        missing = [row for row in rows if not _file(output, row).exists()]
        for grid, same in groupby(missing, key=lambda row: tuple(row["grid"])):
            own = list(same)
            for start in range(0, len(own), batch_size):
                batch = own[start : start + batch_size]
                with evaluating(model):
                    pixel_values = model.detokenize(ids_of(batch, books).to(model.device), grid=grid)
                for row, picture in zip(batch, to_pictures(processor.image_processor, pixel_values), strict=True):
                    _save(Image.fromarray(picture), _file(output, row))
                    drawn += 1
    return drawn


def write_origins(folder: str | Path, output: str | Path) -> int:
    """Writes metadata.jsonl, which names the source of each picture; returns the number of pictures."""
    lines = [
        {"file_name": _file(output, row).name, "row": row["row"], "source": row["source"]}
        for rows in read_tokens(folder)
        for row in rows
    ]
    write_json_lines(Path(output, "metadata.jsonl"), lines)
    return len(lines)


def _file(output: str | Path, row: dict[str, Any]) -> Path:
    return Path(output, f"row-{row['row']:09d}.png")


def _save(picture: Image.Image, file: Path) -> None:
    unfinished = file.with_name(f"{file.name}.unfinished")
    picture.save(unfinished, format="PNG")
    os.replace(unfinished, file)
