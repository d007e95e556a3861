"""Figures as a terminal shows them."""

from collections.abc import Mapping
from typing import Any


def print_figures(figures: Mapping[str, Any], prefix: str = "") -> None:
    """Prints one figure a line, with its 95 % interval where it has one.

    Args:
        prefix: Of the names, left out.
    """
    figures = {name.removeprefix(prefix): value for name, value in figures.items()}
    print("\n".join(_line(name, value, figures) for name, value in figures.items() if not _is_bound(name)))


def _is_bound(name: str) -> bool:
    return name.endswith(("_low", "_high")) and not name.startswith("mim_advantage")


def _line(name: str, value: Any, figures: Mapping[str, Any]) -> str:
    low, high = (figures.get(f"{name}_{end}") for end in ("low", "high"))
    interval = "" if low is None or high is None else f"   {low:.4f} to {high:.4f}"
    return f"{name:<36}{value:12.4f}{interval}" if isinstance(value, float) else f"{name:<36}{value!s:>12}"
