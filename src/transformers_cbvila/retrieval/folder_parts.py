"""Parts of the gallery of a folder of pictures, which several processes encode at a time.

Each part is a gallery by itself, in a folder of the whole one. Its files are moved into that, in the order of the
processes, so that a run that is killed loses none of them.
"""

import shutil
from pathlib import Path

from .indexed_items import append_entries, read_entries
from .shards import Shards


def part_folder(folder: Path, process: int) -> Path:
    """Returns the folder of the part that a process encodes."""
    return folder / f"part-{process:03d}"


def take_parts(shards: Shards) -> None:
    """Moves the parts into their gallery; one process calls it, when the others have finished or were killed."""
    for part in sorted(shards.folder.glob("part-*")):
        shards.describe(complete=False)
        shards.take(part)
        # What these say is only true once the shards are there.
        append_entries(shards.folder, read_entries(part)[0].values())
        shutil.rmtree(part)
