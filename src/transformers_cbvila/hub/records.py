"""What a run recorded of itself, in the words of a card."""

import json
from collections.abc import Mapping
from typing import Any

from .checking import Checkpoint
from .results import Result, results_of_figures, results_of_report

# Of the last log that has a perplexity.
_HEALTH = {
    "codebook_usage": "{:.1%} of the codes in use",
    "codebook_perplexity": "perplexity {:.1f}",
    "codebook_top_share": "{:.1%} of the patches with the most frequent code",
    "codebook_stability": "{:.1%} of a probe's words as they were 100 steps before",
}


def recorded_facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """The recipe, the codebook's health and the results, as far as the run recorded them."""
    pretraining, report = read_record(checkpoint, "pretraining.json"), read_record(checkpoint, "report.json")
    state = read_record(checkpoint, "trainer_state.json") or read_record(checkpoint, "training.json")
    logs = pretraining.get("logs") or state.get("log_history") or []
    inspected = _inspected(read_record(checkpoint, "inspection.json"))
    facts = {
        "recipe": _pretraining_recipe(pretraining) or _demo_recipe(report) or _trainer_recipe(state),
        "codebook": _health(logs, inspected),
        "results": [*(results_of_report(report) if "accuracy" in report else []), *inspected],
    }
    return {name: value for name, value in facts.items() if value}


def recorded_data(checkpoint: Checkpoint) -> list[str]:
    """The names of the data that the run was trained on, each once."""
    return list(dict.fromkeys(read_record(checkpoint, "pretraining.json").get("job", {}).get("train_data", [])))


def read_record(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    """A record beside the model or in its run's folder; empty where there is none."""
    for folder in (checkpoint.folder, checkpoint.run):
        path = folder / name
        if path.is_file():
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise ValueError(f"{path} is no JSON ({error}); mend it or move it away") from None
            return record if isinstance(record, dict) else {}
    return {}


def _inspected(figures: Mapping[str, Any]) -> list[Result]:
    """Figures of one data set, or of several by their names."""
    by_data = {name: value for name, value in figures.items() if isinstance(value, dict)}
    if not by_data:
        return results_of_figures(figures, "held-out data")
    return [result for name, values in by_data.items() for result in results_of_figures(values, name)]


def _pretraining_recipe(record: Mapping[str, Any]) -> str | None:
    if "steps" not in record:
        return None
    pairs = f" ({record['pairs']:,} in all)" if record.get("pairs") else ""
    said = [f"{record['steps']:,} steps of {record['batch_size']:,} pairs{pairs}"]
    for name in ("learning_rate", "weight_decay", "burn_in_steps", "negative_hardening", "seed"):
        value = record.get(name, record.get("arguments", {}).get(name))
        if value is not None:
            said.append(f"{name.replace('_', ' ')} {value}")
    if "device" in record:
        said.append(f"{record.get('world_size', 1)} process(es) on {record['device']}")
    return f"`cbvila pretrain`: {', '.join(said)}."


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


def _health(logs: list[dict[str, Any]], inspected: list[Result]) -> str | None:
    last: dict[str, Any] = next((log for log in reversed(logs) if "codebook_perplexity" in log), {})
    said = [text.format(last[name]) for name, text in _HEALTH.items() if name in last]
    if said:
        return f"In the last training log: {', '.join(said)}."
    return "See the results." if any(result.metric.startswith("codebook_") for result in inspected) else None
