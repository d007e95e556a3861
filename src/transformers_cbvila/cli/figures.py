"""Figures on the terminal."""

from typing import Any

from ..evaluation.figure_lines import figure_lines


def print_figures(figures: dict[str, Any]) -> None:
    """One figure a line, with its 95 % interval where it has one."""
    print("\n".join(figure_lines(figures)))
