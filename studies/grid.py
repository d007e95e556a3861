"""Reads a study from its YAML file, as a grid of cells."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from .cell import Cell
from .fine_tuning import FineTuning

_BY_ARTIST = ("train_artists", "test_artist")
_BY_SOURCE = ("train_data", "test_data")


@dataclass(frozen=True)
class Study:
    """A comparison of arms over seeds, on emoji by artist or on any sources.

    Args:
        name: Name of the file without extension.
        recipe: Options that all arms share.
        arms: By name, the options in which an arm differs. The others are compared with the first.
        seeds: Every arm is run with each seed.
        rerank_k: How many candidates ITM re-ranks in retrieval.
        train_artists: Artists of the training emoji.
        test_artist: Artist of the emoji to retrieve.
        train_data: Sources of training pairs, such as `scenes`, where there are no artists.
        test_data: Source of the pairs to measure on.
        test_split: Split of `test_data`.
        start: Options of a run, one per seed, whose model all arms of that seed start from, as changes to the recipe.
            Or of several runs, each of which goes on from the one before; they may name a `recipe` and `train_data` of
            their own. `None`: all start from random weights.
        then: What the model of every arm is fine-tuned for afterwards, if anything.
        fewer_codes: Measures the codebook, see [`codebook_figures`], also with these numbers of codes; `None`: not.
    """

    name: str
    recipe: dict[str, Any]
    arms: dict[str, dict[str, Any]]
    seeds: list[int]
    rerank_k: int
    train_artists: list[str] | None = None
    test_artist: str | None = None
    train_data: list[str] | None = None
    test_data: str | None = None
    test_split: str = "test"
    start: list[dict[str, Any]] | None = None
    then: FineTuning | None = None
    fewer_codes: list[int] | None = None

    @classmethod
    def read(cls, path: str | Path) -> "Study":
        """Reads a study; its `recipe` is a path relative to it, which its `options` change for all arms.

        `like` names a file beside it, whose entries it has where it has none of its own.

        Raises:
            ValueError: If an entry is missing, unknown, or not valid.
        """
        path = Path(path)
        entries = yaml.safe_load(path.read_text())
        if "like" in entries:
            entries = {**yaml.safe_load((path.parent / entries.pop("like")).read_text()), **entries}
        _check_names(path, set(entries))
        recipe = yaml.safe_load((path.parent / entries["recipe"]).read_text())
        entries["recipe"] = merged(recipe, entries.pop("options", None) or {})
        if isinstance(entries.get("train_data"), str):
            entries["train_data"] = [entries["train_data"]]
        if not entries["arms"] or len(set(entries["seeds"])) != len(entries["seeds"]):
            raise ValueError(f"{path}: a study needs at least one arm, and seeds that differ.")
        if entries.get("start") is not None:
            entries["start"] = _stages(entries["start"], entries["recipe"], path.parent)
        if entries.get("then") is not None:
            entries["then"] = FineTuning.read(entries["then"])
        return cls(name=path.stem, **entries)

    def cells(self, train_data: tuple[str, ...], test_data: str, folder: Path) -> Iterator[Cell]:
        """Yields all cells, seed by seed, so that every arm is run once before any is run twice."""
        where = train_data, test_data, self.rerank_k
        for seed in self.seeds:
            start = self._start(seed, train_data, test_data, folder)
            for number, (arm, changes) in enumerate(self.arms.items()):
                options = merged(self.recipe, changes or {})
                result = folder / self.name / f"{number:02d}-{slug(arm)}-seed{seed}.json"
                if start is not None:
                    options["model"] = str(start.folder)
                yield Cell(arm, seed, options, *where, result, start, self.test_split, self.then, self.fewer_codes)

    def _start(self, seed: int, train_data: tuple[str, ...], test_data: str, folder: Path) -> Cell | None:
        """Returns the run that arms start from, if any; the runs that it goes on from are its own starts."""
        start = None
        for number, stage in enumerate(self.start or []):
            options = dict(stage)
            data = tuple(options.pop("train_data", train_data))
            if data == train_data:
                ending = "" if len(self.start or []) == 1 else f"-{number + 1}"
                tested, result = test_data, folder / self.name / f"start{ending}-seed{seed}.json"
            else:  # studies share it; and only a start on the data of the study has all that is measured
                before = None if start is None else start.result.stem
                tested, result = None, folder / "starts" / f"{_digest(options, data, before)}-seed{seed}.json"
            if start is not None:
                options["model"] = str(start.folder)
            start = Cell("start", seed, options, data, tested, self.rerank_k, result, start, self.test_split)
        return start


def _stages(start: Any, recipe: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Returns the options of each run of a start; paths of recipes are relative to the folder of the study."""
    stages = []
    for stage in [start] if isinstance(start, Mapping) else start:
        changes = dict(stage)
        own = changes.pop("recipe", None)
        base = recipe if own is None else yaml.safe_load((folder / own).read_text())
        if isinstance(changes.get("train_data"), str):
            changes["train_data"] = [changes["train_data"]]
        stages.append(merged(base, changes))
    return stages


def _check_names(path: Path, entries: set[str]) -> None:
    """Raises a ValueError unless a study has the entries that it needs, and no others."""
    needed = {field.name for field in fields(Study) if field.default is MISSING} - {"name"}
    others = {field.name for field in fields(Study)} - needed - {"name"} | {"options"}
    if not needed <= entries <= needed | others:
        raise ValueError(
            f"{path} has the entries {sorted(entries)}; a study has {sorted(needed)}, and may have {sorted(others)}."
        )
    given = [set(way) & entries == set(way) for way in (_BY_ARTIST, _BY_SOURCE)]
    if sum(given) != 1 or len(entries & {*_BY_ARTIST, *_BY_SOURCE}) != 2:
        raise ValueError(
            f"{path}: give either {' and '.join(_BY_ARTIST)}, or {' and '.join(_BY_SOURCE)}: built-in sources such "
            "as scenes, or folders."
        )


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `base` with `changes`, merging nested mappings.

    One of another `type`, such as that of a quantizer, replaces the one before: its options are others.
    """
    result = dict(base)
    for name, value in changes.items():
        before = result.get(name)
        nested = isinstance(value, Mapping) and isinstance(before, Mapping)
        result[name] = merged(before, value) if nested and not _is_of_another_type(value, before) else value
    return result


def _is_of_another_type(value: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    return "type" in value and value["type"] != before.get("type")


def _digest(*values: Any) -> str:
    """Returns a short name for what these values are."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def slug(text: str) -> str:
    """Returns the letters and digits of a text, joined by dashes, for a file name."""
    words = "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()
    return "-".join(words)
