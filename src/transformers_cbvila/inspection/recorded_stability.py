"""The stability of codes that a run recorded: it compares steps of training, so that weights alone do not tell it."""

import json
from pathlib import Path
from typing import Any

_NAME = "codebook_stability"
_RECORDS = (("pretraining.json", "logs"), ("trainer_state.json", "log_history"))


def recorded_stability(folder: str | Path) -> dict[str, float]:
    """Returns the last `codebook_stability` in the logs beside a model's weights; empty if there are none.

    It is the share of indices of a fixed batch that stayed the same over the last steps.
    """
    for file, key in _RECORDS:
        for entry in reversed(_logs(Path(folder, file), key)):
            if _NAME in entry:
                return {_NAME: float(entry[_NAME])}
    return {}


def _logs(path: Path, key: str) -> list[dict[str, Any]]:
    try:
        return json.loads(path.read_text(encoding="utf-8")).get(key) or []
    except (OSError, ValueError, AttributeError):
        return []  # a Hub id, or weights without a record
