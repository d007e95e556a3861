"""Turns the records of a run into facts for a card."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from .checking import Checkpoint
from .results import Result, results_of_metrics, results_of_report

# Read from the last log entry that has a perplexity.
_HEALTH = {
    "codebook_usage": "{:.1%} of the codes in use",
    "codebook_perplexity": "perplexity {:.1f}",
    "codebook_top_share": "{:.1%} of the patches with the most frequent code",
    "codebook_stability": "{:.1%} of a probe's words as they were 100 steps before",
}


def recorded_facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """Returns the recipe, the state of the codebook and the results, as far as the run recorded them."""
    training, report = _training(checkpoint), read_record(checkpoint, "report.json")
    state = read_record(checkpoint, "trainer_state.json") or read_record(checkpoint, "training.json")
    logs = training.get("logs") or state.get("log_history") or []
    measured = _measured(checkpoint)
    facts = {
        "recipe": _job_recipe(training) or _demo_recipe(report) or _trainer_recipe(state),
        "codebook": _health(logs, measured),
        "results": [*(results_of_report(report) if "accuracy" in report else []), *measured],
    }
    return {name: value for name, value in facts.items() if value}


def recorded_data(checkpoint: Checkpoint) -> list[str]:
    """Returns the names of the datasets that the run was trained on, without duplicates."""
    return list(dict.fromkeys(_training(checkpoint).get("job", {}).get("train_data", [])))


def _training(checkpoint: Checkpoint) -> dict[str, Any]:
    return read_record(checkpoint, "finetuning.json") or read_record(checkpoint, "pretraining.json")


def _measured(checkpoint: Checkpoint) -> list[Result]:
    """Returns the results in `inspection.json` and `evaluation*.json`, of one dataset each or of several by name."""
    paths = [path for folder in {checkpoint.folder, checkpoint.run} for path in folder.glob("evaluation*.json")]
    found = []
    for name in ("inspection.json", *sorted({path.name for path in paths})):
        metrics = read_record(checkpoint, name)
        by_data = {key: value for key, value in metrics.items() if isinstance(value, dict)}
        for dataset, values in (by_data or {metrics.get("data", "held-out data"): metrics}).items():
            _require_same_weights(checkpoint, name, values)
            protocol = values.get("protocol", "own")
            named = dataset if protocol == "own" else f"{dataset}, {protocol}"
            trained_on = values.get("trained_on") is True
            results = results_of_metrics(values, named, values.get("split", "test"))
            found += [replace(result, trained_on=trained_on) for result in results]
    return found


def _require_same_weights(checkpoint: Checkpoint, name: str, metrics: Mapping[str, Any]) -> None:
    """Raises a ValueError for figures that were measured on other weights; those of earlier versions do not say."""
    measured = metrics.get("weights")
    if measured is not None and measured != checkpoint.digest:
        raise ValueError(
            f"{name} in {checkpoint.run} was measured on other weights than are there now, as after another training: "
            "measure again, or move it away"
        )


def read_record(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    """Reads a record in the model's folder or its run's.

    Returns:
        The record; empty if there is none.

    Raises:
        ValueError: If it is not JSON.
    """
    for folder in (checkpoint.folder, checkpoint.run):
        path = folder / name
        if path.is_file():
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise ValueError(f"{path} is no JSON ({error}); repair it or move it away") from None
            return record if isinstance(record, dict) else {}
    return {}


def _job_recipe(record: Mapping[str, Any]) -> str | None:
    """Describes a run of `cbvila pretrain` or `cbvila finetune`."""
    if "steps" not in record:
        return None
    command = f"finetune {record['task']}" if "task" in record else "pretrain"
    rows = "examples" if "task" in record else "pairs"
    start = record.get("job", {}).get("model")
    parts = [f"{record['steps']:,} steps of {record['batch_size']:,} {rows}"]
    parts[0] += f", drawn from {record['pairs']:,}" if record.get("pairs") else ""
    parts += [f"from {Path(start).name}"] if start else []
    names = (
        "learning_rate",
        "weight_decay",
        *(() if "task" in record else ("burn_in_steps", "negative_hardening")),
        "seed",
    )
    for name in names:
        value = record.get(name, record.get("arguments", {}).get(name))
        if value is not None:
            parts.append(f"{name.replace('_', ' ')} {value}")
    if "device" in record:
        number = record.get("world_size", 1)
        parts.append(f"{number} process{'es' * (number != 1)} on {record['device']}")
    return f"`cbvila {command}`: {', '.join(parts)}."


def _demo_recipe(report: Mapping[str, Any]) -> str | None:
    if "train_steps" not in report:
        return None
    return (
        f"`{report.get('command') or 'cbvila demo'}`: {report['train_steps']:,} steps from "
        f"{report.get('model_source', 'another checkpoint')}, {report.get('train_seconds', 0):.0f} seconds."
    )


def _trainer_recipe(state: Mapping[str, Any]) -> str | None:
    steps = state.get("global_step", state.get("steps"))
    return f"{steps:,} steps of transformers' Trainer." if steps else None


def _health(logs: list[dict[str, Any]], measured: list[Result]) -> str | None:
    last: dict[str, Any] = next((log for log in reversed(logs) if "codebook_perplexity" in log), {})
    parts = [text.format(last[name]) for name, text in _HEALTH.items() if name in last]
    if parts:
        return f"In the last training log: {', '.join(parts)}."
    return "See the results." if any(result.metric.startswith("codebook_") for result in measured) else None
