"""Reads a study from its YAML file, as a grid of cells."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .cell import Cell


@dataclass(frozen=True)
class Study:
    """A comparison of arms over seeds.

    Args:
        name: Name of the file without extension.
        recipe: Options that all arms share.
        arms: By name, the options in which an arm differs. The others are compared with the first.
        seeds: Every arm is run with each seed.
        train_artists: Artists of the training emoji.
        test_artist: Artist of the emoji to retrieve.
        rerank_k: How many candidates ITM re-ranks in retrieval.
        start: Changes to the recipe for a run, one per seed, whose model all arms of that seed start from; `None`: all
            start from random weights.
    """

    name: str
    recipe: dict[str, Any]
    arms: dict[str, dict[str, Any]]
    seeds: list[int]
    train_artists: list[str]
    test_artist: str
    rerank_k: int
    start: dict[str, Any] | None = None

    @classmethod
    def read(cls, path: str | Path) -> "Study":
        """Reads a study; its `recipe` is a path relative to it.

        Raises:
            ValueError: If an entry is missing, unknown, or not valid.
        """
        path = Path(path)
        entries = yaml.safe_load(path.read_text())
        expected = set(cls.__dataclass_fields__) - {"name"}
        if {"start", *entries} != expected:
            raise ValueError(f"{path} has the entries {sorted(entries)}; a study has {sorted(expected)}.")
        entries["recipe"] = yaml.safe_load((path.parent / entries["recipe"]).read_text())
        if not entries["arms"] or len(set(entries["seeds"])) != len(entries["seeds"]):
            raise ValueError(f"{path}: a study needs at least one arm, and seeds that differ.")
        return cls(name=path.stem, **entries)

    def cells(self, train_data: tuple[str, ...], test_data: str, folder: Path) -> Iterator[Cell]:
        """Yields all cells, seed by seed, so that every arm is run once before any is run twice."""
        for seed in self.seeds:
            start = None
            if self.start is not None:
                options, result = merged(self.recipe, self.start), folder / self.name / f"start-seed{seed}.json"
                start = Cell("start", seed, options, train_data, test_data, self.rerank_k, result)
            for number, (arm, changes) in enumerate(self.arms.items()):
                options = merged(self.recipe, changes or {})
                result = folder / self.name / f"{number:02d}-{slug(arm)}-seed{seed}.json"
                if start is not None:
                    options["model"] = str(start.folder)
                yield Cell(arm, seed, options, train_data, test_data, self.rerank_k, result, start)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `base` with `changes`, merging nested mappings."""
    result = dict(base)
    for name, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(result.get(name), Mapping)
        result[name] = merged(result[name], value) if nested else value
    return result


def slug(text: str) -> str:
    """Returns the letters and digits of a text, joined by dashes, for a file name."""
    words = "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()
    return "-".join(words)
