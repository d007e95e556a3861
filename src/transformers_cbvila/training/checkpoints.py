"""Where an interrupted training goes on."""

import json
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR


def last_complete_checkpoint(output_dir: str | Path) -> str | None:
    """The newest complete checkpoint in a Trainer's output folder, or None.

    Trainer writes `trainer_state.json` last: a folder without it, or with half of it, was being written when the run
    was killed, and is passed over.
    """
    folders = [path for path in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if _step(path) is not None]
    for folder in sorted(folders, key=lambda path: _step(path) or 0, reverse=True):
        if _is_complete(folder):
            return str(folder)
    return None


def _step(folder: Path) -> int | None:
    number = folder.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")
    return int(number) if number.isdigit() else None


def _is_complete(folder: Path) -> bool:
    try:
        json.loads((folder / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return False
    return True
