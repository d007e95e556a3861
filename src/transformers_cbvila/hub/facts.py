"""Collects the facts for a checkpoint's card, from the records of its run and from the publisher's YAML file."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..model.messages_cbvila import shown
from .checking import Checkpoint
from .records import recorded_data, recorded_facts
from .results import Result, is_number

# Required facts, with what to write for each.
_NEEDED: dict[str, str] = {
    "license": "the licence of the weights, e.g. apache-2.0",
    "data": "what it was trained on, a list of {name, what, license}",
    "recipe": "how it was trained, in a sentence",
    "results": "what was measured, a list of {dataset, metric, value, floors}; [] where nothing was",
    "codebook": "how its codebook fares, in a sentence; or inspection.json in the folder, by cbvila inspect --output",
    "limits": "what it cannot do, in a sentence",
}


@dataclass
class Facts:
    """The facts in a card that its template does not have.

    Attributes:
        license: Licence of the weights, as the Hub names licences.
        language: Languages of the texts, ISO codes.
        base_model: The model on the Hub that it was fine-tuned from.
        data: `name`, `what` and `license` of each training dataset.
        recipe: How it was trained.
        results: What was measured.
        codebook: The state of its codebook.
        limits: What it cannot do, beyond what holds for every checkpoint of its kind.
        leave_out: By dataset, prefixes of the metrics that mean nothing on it.
    """

    license: str = ""
    language: list[str] = field(default_factory=lambda: ["en"])
    base_model: str | None = None
    data: list[dict[str, str]] = field(default_factory=list)
    recipe: str = ""
    results: list[Result] | None = None
    codebook: str = ""
    limits: str = ""
    leave_out: dict[str, list[str]] = field(default_factory=dict)


def collect_facts(checkpoint: Checkpoint, path: str | Path | None = None) -> Facts:
    """Collects the facts of a checkpoint.

    Args:
        checkpoint: The checkpoint.
        path: A YAML file with fields of [`Facts`], which override what the run recorded.

    Raises:
        ValueError: If facts are missing (all are named), or the file is not one of facts.
    """
    facts = known_facts(checkpoint, path)
    missing = _missing(checkpoint, facts)
    if missing:
        listed = "; ".join(f"{name} ({_NEEDED[name]})" for name in missing)
        trained_on = ", ".join(recorded_data(checkpoint)) if "data" in missing else ""
        names = f" (data has to describe {trained_on}, by these names)" if trained_on else ""
        raise ValueError(
            f"the model card lacks {listed}{names}. Say it in a YAML file, --facts FILE (cbvila publish --help shows "
            "one), or write the card yourself, --card FILE"
        )
    described = {item["name"] for item in facts.data}
    undescribed = [name for name in recorded_data(checkpoint) if name not in described]
    if undescribed:
        raise ValueError(
            f"the run was trained on {', '.join(undescribed)}, and the facts do not say what that is: add {{name: "
            f"{undescribed[0]}, what: ..., license: ...}} to data in the file of --facts"
        )
    left_out = {name: tuple(metrics) for name, metrics in facts.leave_out.items()}
    facts.results = [r for r in facts.results or () if not r.metric.startswith(left_out.get(r.dataset, ()))]
    return facts


def known_facts(checkpoint: Checkpoint, path: str | Path | None = None) -> Facts:
    """Returns what is known of a checkpoint, whether or not a card needs more.

    Args:
        checkpoint: The checkpoint.
        path: See [`collect_facts`].

    Raises:
        ValueError: If the file is not one of facts.
    """
    given = {} if path is None else _read_facts(Path(path))
    return Facts(**{**recorded_facts(checkpoint), **given})


def _missing(checkpoint: Checkpoint, facts: Facts) -> list[str]:
    needed = [name for name in _NEEDED if name != "codebook" or checkpoint.kind.has_codebook]
    # An empty list of results is a valid fact; None is not.
    return [name for name in needed if getattr(facts, name) in ("", None) or (name == "data" and not facts.data)]


def _read_facts(path: Path) -> dict[str, Any]:
    import yaml

    if not path.is_file():
        raise ValueError(f"--facts {path}: there is no such file")
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(given, dict):
        raise ValueError(f"{path} has no 'name: value' lines; cbvila publish --help shows a file of facts")
    known = [item.name for item in fields(Facts)]
    for name in given:
        if name not in known:
            raise ValueError(f"{path} has the fact {shown(name)}, which no card shows; there are {', '.join(known)}")
    return {name: _READERS.get(name, _text)(value, f"{name} in {path}") for name, value in given.items()}


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where} is {shown(value)}; expected a text")
    return value.strip()


def _texts(value: Any, where: str) -> list[str]:
    return [_text(item, where) for item in (value if isinstance(value, list) else [value])]


def _data(value: Any, where: str) -> list[dict[str, str]]:
    keys = {"name", "what", "license"}
    for item in value if isinstance(value, list) and value else [value]:
        if not isinstance(item, dict) or set(item) != keys:
            raise ValueError(f"{where} has {shown(item)}; expected a list of {{name: ..., what: ..., license: ...}}")
    return [{key: _text(item[key], where) for key in item} for item in value]


def _results(value: Any, where: str) -> list[Result]:
    if not isinstance(value, list):
        raise ValueError(f"{where} is {shown(value)}; expected a list, [] where nothing was measured")
    known = [item.name for item in fields(Result)]
    for item in value:
        if not isinstance(item, dict) or not {"dataset", "metric", "value"} <= set(item) <= set(known):
            raise ValueError(f"{where} has {shown(item)}; expected dataset, metric and value, and perhaps {known[3:]}")
        floors = item.get("floors", {})
        numbers = [item[name] for name in ("value", "low", "high") if name in item]
        if not isinstance(floors, dict) or not all(map(is_number, [*numbers, *floors.values()])):
            raise ValueError(f"{where} has {shown(item)}; expected numbers, and floors as {{name: number}}")
    return [Result(**item) for item in value]


def _leave_out(value: Any, where: str) -> dict[str, list[str]]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {shown(value)}; expected {{data set: [beginnings of metrics]}}")
    return {str(name): _texts(metrics, where) for name, metrics in value.items()}


_READERS: dict[str, Callable[[Any, str], Any]] = {
    "language": _texts,
    "data": _data,
    "results": _results,
    "leave_out": _leave_out,
}
