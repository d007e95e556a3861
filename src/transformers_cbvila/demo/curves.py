"""Training curves as a PNG: one small panel for each loss and one for the learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from transformers_cbvila.extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEARNING_RATE = "learning_rate"
_COLUMNS = 3
_PANEL_INCHES = (3.7, 2.3)
# Line, text and grid colours that match the report's style sheet; the background is transparent.
_LIGHT = {"line": "#2f6fde", "text": "#57606a", "grid": "#d8dee4"}
_DARK = {"line": "#79aaff", "text": "#9aa4b2", "grid": "#353c47"}


def curve_names(log_history: Sequence[Mapping[str, Any]]) -> list[str]:
    """The logged quantities that are drawn: the total loss, its components by name, then the learning rate."""
    logged = {key for entry in log_history if "step" in entry for key in entry}
    losses = sorted((key for key in logged if key.startswith("loss")), key=lambda key: (key != "loss", key))
    return losses + [LEARNING_RATE] * (LEARNING_RATE in logged)


def draw_curves(log_history: Sequence[Mapping[str, Any]], *, dark: bool) -> bytes | None:
    """Draws the curves against the training step.

    Args:
        log_history: `Trainer.state.log_history`.
        dark: colours for a dark background.

    Returns:
        A PNG file's bytes, or None when nothing was logged.

    Raises:
        ImportError: `matplotlib` is not installed.
    """
    names = curve_names(log_history)
    if not names:
        return None
    rows = -(-len(names) // _COLUMNS)
    width, height = _PANEL_INCHES
    # A bare Figure draws with Agg when saved as PNG and touches no global pyplot state.
    figure = require("matplotlib.figure").Figure(figsize=(width * _COLUMNS, height * rows), layout="constrained")
    for number, name in enumerate(names, start=1):
        axes = figure.add_subplot(rows, _COLUMNS, number)
        points = [(entry["step"], entry[name]) for entry in log_history if "step" in entry and name in entry]
        _draw_panel(axes, name, points, _DARK if dark else _LIGHT)
    file = BytesIO()
    figure.savefig(file, format="png", dpi=140, transparent=True)
    return file.getvalue()


def _draw_panel(axes: Axes, name: str, points: Sequence[tuple[int, float]], colors: Mapping[str, str]) -> None:
    steps, values = zip(*points, strict=True)
    axes.plot(steps, values, color=colors["line"], linewidth=1.6, marker="o" if len(points) == 1 else "")
    axes.set_title(_panel_title(name), color=colors["text"], fontsize=10, loc="left")
    axes.grid(color=colors["grid"], linewidth=0.6)
    axes.tick_params(colors=colors["text"], labelsize=8, length=0)
    axes.margins(x=0.02)
    axes.set_ylim(bottom=min(0, *values))
    if name == LEARNING_RATE:
        axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
        axes.yaxis.get_offset_text().set(color=colors["text"], fontsize=8)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(colors["grid"])


def _panel_title(name: str) -> str:
    if name == "loss":
        return "total loss"
    return name.removeprefix("loss_").replace("_", " ") + (" loss" if name.startswith("loss") else "")
