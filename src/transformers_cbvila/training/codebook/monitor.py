"""Codebook monitoring: usage metrics for every log, and an alarm on collapse.

Shapes: K codes, C code width.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.utils import logging

from ...model.codebook_statistics_cbvila import codebook_statistics
from ..context import TrainingContext
from ..peft import quantizer_of

logger = logging.get_logger(__name__)

_DEAD_BELOW = 0.1  # of the expected count, when no threshold for restarts says otherwise


@dataclass
class _Window:
    """Sums over the forwards of a window, of this process and on its device."""

    counts: Tensor | None = None
    metrics: dict[str, Tensor] = field(default_factory=dict)
    forwards: int = 0

    def add(self, counts: Tensor, metrics: dict[str, Tensor]) -> None:
        self.counts = counts if self.counts is None else self.counts + counts
        self.forwards += 1
        self.metrics = {name: value + self.metrics.get(name, 0) for name, value in metrics.items()}


class CodebookMonitor:
    """Counts codes over log windows, and over longer windows for the alarm.

    Args:
        context: The context of the run.

    Attributes:
        alarmed: Whether the codebook had collapsed in the last window of `codebook_alarm_steps` steps.
        choice_alarmed: Whether the quantizer's own metrics were out of their range in it.
    """

    def __init__(self, context: TrainingContext) -> None:
        self.context = context
        self.reset()

    def reset(self) -> None:
        """Clears counts and alarms."""
        self.alarmed = False
        self.choice_alarmed = False
        self._log, self._long = _Window(), _Window()
        self._restarted: Tensor | None = None
        self._codes: list[Tensor] = []

    @property
    def quantizer(self) -> Any:
        """The quantizer of the model."""
        return quantizer_of(self.context.model)

    def forget_alarm(self) -> None:
        """Resets the alarm and its window: after k-means they are about codes that are gone."""
        self.alarmed, self._long = False, _Window()

    def remember_codes(self) -> None:
        """Stores the codes of each table; drift is measured from here."""
        self._codes = [codes.clone() for codes in self._current_codes()]

    def observe(self, outputs: Any) -> None:
        """Adds the code counts and the quantizer's metrics of a training forward."""
        counts = outputs.get("codebook_counts")
        if counts is not None:
            computed = codebook_statistics(counts, self.quantizer.book_sizes)
            statistics = outputs.get("codebook_statistics") or {}
            metrics = {name: value.detach() for name, value in statistics.items() if name not in computed}
            for window in (self._log, self._long):
                window.add(counts.detach(), metrics)

    def count_restarts(self, moved: Tensor) -> None:
        """Adds a number of restarted codes to the log window."""
        self._restarted = moved if self._restarted is None else self._restarted + moved

    def logs(self) -> dict[str, float]:
        """Returns the metrics of the current log window and starts the next one."""
        metrics = self._window_metrics(self._log)
        if self._log.counts is not None:
            counts = metrics.pop("counts")
            metrics["entropy"] = metrics["perplexity"].log()
            metrics["dead"] = self._dead_share(counts)
            if self._codes:
                metrics["drift"] = self._drift(self._codes, counts)
        self.remember_codes()
        if self._restarted is not None:
            metrics["restarted"] = self._restarted
        self._log, self._restarted = _Window(), None
        return {name: float(value) for name, value in metrics.items()}

    def check(self) -> None:
        """Updates the alarm from the long window and starts the next; call it every `codebook_alarm_steps` steps."""
        metrics, args = self._window_metrics(self._long), self.context.args
        self._long = _Window()
        if not metrics:
            return
        usage, top_share = float(metrics["usage"]), float(metrics["top_share"])
        collapsed = usage < args.codebook_alarm_usage or top_share > args.codebook_alarm_top_share
        if collapsed and not self.alarmed:
            self._warn_of_collapse(usage, top_share)
        self.alarmed = collapsed
        fault = self.quantizer.metric_alarm({name: float(metrics[name]) for name in metrics if name != "counts"})
        if fault and not self.choice_alarmed and self.context.is_main_process:
            logger.warning(f"Over the last {args.codebook_alarm_steps} steps, {fault}")
        self.choice_alarmed = fault is not None

    def state_dict(self) -> dict[str, Any]:
        """Returns the long window over all processes; call it on all of them."""
        counts, world_size = self._sum(self._long.counts), self.context.args.world_size
        return {
            "alarmed": self.alarmed,
            "choice_alarmed": self.choice_alarmed,
            "counts": counts,
            "metrics": {name: self._sum(value) / world_size for name, value in self._long.metrics.items()},
            "forwards": self._long.forwards,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the long window."""
        self.reset()
        self.alarmed, self.choice_alarmed = state["alarmed"], state["choice_alarmed"]
        device, counts = self.context.args.device, state["counts"]
        if counts is not None:
            # A sum over processes, which one of them takes over.
            counts = counts.to(device) * int(self.context.args.process_index == 0)
            metrics = {name: value.to(device) for name, value in state.get("metrics", {}).items()}
            self._long = _Window(counts, metrics, state["forwards"])

    def _window_metrics(self, window: _Window) -> dict[str, Tensor]:
        """Returns statistics and counts over all processes; empty if nothing was counted."""
        counts = self._sum(window.counts)
        if counts is None:
            return {}
        forwards = window.forwards * self.context.args.world_size
        metrics = {name: self._sum(value) / forwards for name, value in window.metrics.items()}
        return {**codebook_statistics(counts, self.quantizer.book_sizes), **metrics, "counts": counts}

    def _sum(self, value: Any) -> Any:
        return None if value is None else self.context.accelerator.reduce(value.clone(), reduction="sum")

    def _dead_share(self, counts: Tensor) -> Tensor:
        """Returns the share of codes used less than a threshold: by moving average, or in this window without one."""
        tables = self.quantizer.tables()
        threshold = self.context.args.codebook_restart_threshold or _DEAD_BELOW
        if self.quantizer.can_restart:
            return torch.cat([table.dead_codes(threshold) for table in tables]).float().mean()
        return (counts < threshold * counts.float().mean()).float().mean()

    def _drift(self, before: list[Tensor], counts: Tensor) -> Tensor:
        """Returns the mean, over the codes in use, of 1 - cosine between their earlier (K, C) and current vectors."""
        pairs = zip(before, self._current_codes(), strict=True)
        turned = torch.cat([1 - F.cosine_similarity(earlier, now, dim=-1) for earlier, now in pairs])
        return turned[counts > 0].mean()

    def _current_codes(self) -> list[Tensor]:
        return [table.whole_codes().detach() for table in self.quantizer.tables()]

    def _warn_of_collapse(self, usage: float, top_share: float) -> None:
        if not self.context.is_main_process:
            return
        args, quantizer = self.context.args, self.quantizer
        first = ""
        if quantizer.can_restart and args.codebook_restart_threshold > 0:
            first = "Unused codes restart until it recovers"
            first += ", once align_steps are over. " if args.align_steps > 0 else ". "
        elif quantizer.can_restart:
            first = "codebook_restart_threshold=0.3 would restart unused codes. "
        logger.warning(
            f"The codebook collapses: over the last {args.codebook_alarm_steps} steps {usage:.1%} of its "
            f"{quantizer.num_codes} codes were used (alarm below {args.codebook_alarm_usage:.0%}), and the most "
            f"frequent one stood for {top_share:.1%} of the tokens (alarm above {args.codebook_alarm_top_share:.0%}). "
            f"{first}What else helps: codes that start from features (codebook_init, and codebook_refit for encoders "
            "that start from random weights), a longer burn_in_steps, a lower learning rate, no gradient of MIM to "
            f"the image encoder; {quantizer.collapse_advice}."
        )
