"""Prints metrics to the terminal."""

from collections.abc import Mapping
from typing import Any


def print_metrics(metrics: Mapping[str, Any], prefix: str = "") -> None:
    """Prints one metric per line, with its 95 % interval if it has one.

    Args:
        metrics: The metrics by name.
        prefix: Prefix of the names to omit.
    """
    metrics = {name.removeprefix(prefix): value for name, value in metrics.items()}
    print("\n".join(_line(name, value, metrics) for name, value in metrics.items() if not _is_bound(name)))


def _is_bound(name: str) -> bool:
    return name.endswith(("_low", "_high"))


def _line(name: str, value: Any, metrics: Mapping[str, Any]) -> str:
    low, high = (metrics.get(f"{name}_{end}") for end in ("low", "high"))
    interval = "" if low is None or high is None else f"   {low:.4f} to {high:.4f}"
    return f"{name:<36}{value:12.4f}{interval}" if isinstance(value, float) else f"{name:<36}{value!s:>12}"
