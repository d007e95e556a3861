"""Whether rows that a model is measured on are among those that its fine-tuning recorded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..bundled import checkpoint_source
from ..data.source_rows import split_as_read
from ..data.splits import splits_in


def sources_of_training(model: str, sources: Sequence[str], split: str, where: Sequence[str]) -> list[str]:
    """Returns the sources whose rows are among the training data in the model's `finetuning.json`.

    The record has names of files and no folders, so that a file of the same name counts. Parts of splits
    ("train[:90%]") and conditions count where they are the same as in training; whether others overlap is not known.

    Args:
        model: Folder or name of the model.
        sources: Sources of the rows.
        split: Their split.
        where: Conditions on the rows.
    """
    path = Path(checkpoint_source(model)) / "finetuning.json"
    record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    job, conditions = record.get("job", {}), record.get("settings", {}).get("where") or []
    if conditions and sorted(conditions) != sorted(where):
        return []
    trained = job.get("train_split", "train")
    return [
        source
        for source in sources
        if Path(source).name in job.get("train_data", ())
        and _overlap(split_as_read([source], split), split_as_read([source], trained))
    ]


def _overlap(split: str, trained: str) -> bool:
    if "[" in trained:
        return split == trained or split in splits_in(trained)  # the whole split, of which a part was trained on
    return bool(set(splits_in(split)) & set(splits_in(trained)))
