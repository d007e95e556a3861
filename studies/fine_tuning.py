"""What the models of a study are fine-tuned for after pretraining, and measured on."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class FineTuning:
    """A fine-tuning for a task with its measurement.

    Args:
        task: A task of `cbvila finetune` and `cbvila evaluate`.
        train_data: Sources with a `train` split.
        data: Source to measure on.
        split: Split of `data`.
        options: Other options of `cbvila finetune`.
    """

    task: str
    train_data: tuple[str, ...]
    data: str
    split: str
    options: Mapping[str, Any]

    @classmethod
    def read(cls, entries: Mapping[str, Any]) -> "FineTuning":
        """Reads the entry `then` of a study: the fields of this class, beside options of `cbvila finetune`.

        Raises:
            ValueError: If a field is missing.
        """
        own = [field.name for field in fields(cls) if field.name != "options"]
        missing = [name for name in own if name not in entries]
        if missing:
            raise ValueError(f"then lacks {', '.join(missing)}; it has {', '.join(own)}, and options of finetune.")
        options = {name: value for name, value in entries.items() if name not in own}
        train_data = entries["train_data"]
        sources = (train_data,) if isinstance(train_data, str) else tuple(train_data)
        return cls(entries["task"], sources, entries["data"], entries["split"], options)

    def commands(self, model: Path, seed: int, result: Path) -> Iterator[list[str]]:
        """Yields the arguments of `cbvila` that fine-tune a model and measure what comes of it.

        Args:
            model: Folder of the pretrained model.
            seed: Seed of the fine-tuning.
            result: File of the figures; the fine-tuned model is in the folder of the same name beside it.
        """
        trained, train_data = str(result.with_suffix("")), ["--train_data", *self.train_data]
        yield [
            *("finetune", self.task, "--model", str(model), *train_data, "--seed", str(seed)),
            *("--output_dir", trained, "--resume", "--report_to", "none"),
            *(word for name, value in self.options.items() for word in _as_words(name, value)),
        ]
        floors = [] if self.task == "retrieval" else train_data  # retrieval has no floor of texts alone
        yield [
            *("evaluate", self.task, "--model", trained, "--data", self.data, "--split", self.split),
            *floors,
            *("--output", str(result)),
        ]


def _as_words(name: str, value: Any) -> list[str]:
    """Returns an option as words of a command line."""
    if isinstance(value, Mapping):
        return [f"--{name}", json.dumps(value)]
    return [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
