"""Prints metrics to the terminal."""

import re
from collections.abc import Mapping
from typing import Any

_RECALL = re.compile(r"^(.+_r)(\d+)(_[a-z_]+)?$")  # such as text_retrieval_r10_reranked
# Ends of names of what a metric is compared with, which stands in its line.
_COMPARED = {"_floor": "floor", "_position_floor": "floor by position", "_shuffled_caption": "shuffled caption"}


def print_metrics(metrics: Mapping[str, Any], prefix: str = "") -> None:
    """Prints one metric per line, with its 95 % interval and its floor if it has them, and recalls at 1, 5, 10 as one.

    Args:
        metrics: The metrics by name.
        prefix: Prefix of the names to omit.
    """
    metrics = {name.removeprefix(prefix): value for name, value in metrics.items()}
    print("\n".join(metric_lines(metrics)))


def metric_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Returns the lines.

    Args:
        metrics: The metrics by name.
    """
    together = dict[str, list[str]]()
    for name in metrics:
        if not _stands_elsewhere(name, metrics):
            together.setdefault(_RECALL.sub(r"\1K\3", name), []).append(name)
    return [f"{_label(names):<36}{'  '.join(_value(name, metrics) for name in names)}" for names in together.values()]


def _stands_elsewhere(name: str, metrics: Mapping[str, Any]) -> bool:
    """Returns whether a metric is an end of an interval, or what another metric is compared with."""
    return any(name.endswith(end) and name.removesuffix(end) in metrics for end in ("_low", "_high", *_COMPARED))


def _label(names: list[str]) -> str:
    """Returns what a line begins with: the name, or of recalls at several ranks such as `text_retrieval_r1/5/10`."""
    if len(names) == 1:
        return names[0]
    ranks = "/".join(_RECALL.sub(r"\2", name) for name in names)
    return _RECALL.sub(rf"\g<1>{ranks}\3", names[0])


def _value(name: str, metrics: Mapping[str, Any]) -> str:
    """Returns a metric's value with its interval and what it is compared with."""
    value = metrics[name]
    if not isinstance(value, float):
        return f"{value!s:>8}"
    low, high = (metrics.get(f"{name}_{end}") for end in ("low", "high"))
    interval = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    compared = [f"{what} {metrics[name + end]:.4f}" for end, what in _COMPARED.items() if name + end in metrics]
    return f"{value:8.4f}{interval}" + (f"  ({', '.join(compared)})" if compared else "")
