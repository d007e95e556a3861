"""Figures on the terminal."""

from typing import Any


def print_figures(figures: dict[str, Any]) -> None:
    """One figure a line, with its 95 % interval where it has one."""
    for name, value in figures.items():
        low, high = (figures.get(f"{name}_{end}") for end in ("low", "high"))
        if not name.endswith(("_low", "_high")) or name.startswith("mim_advantage"):
            interval = "" if low is None or high is None else f"   {low:.4f} to {high:.4f}"
            print(f"{name:<36}{value:12.4f}{interval}" if isinstance(value, float) else f"{name:<36}{value!s:>12}")
