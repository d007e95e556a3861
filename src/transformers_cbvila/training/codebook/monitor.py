"""Codebook monitoring: usage metrics for every log, and an alarm on collapse.

Shapes: K codes, C code width.
"""

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from transformers.utils import logging

from ...model.losses_cbvila import at_least_fp32
from ...model.modeling_cbvila_codebook import codebook_statistics

logger = logging.get_logger(__name__)

_DEAD_BELOW = 0.1  # of the expected count, when no threshold for restarts says otherwise
_OPEN_CHOICE = (0.3, 0.95)  # of sampled codes that are the nearest: outside, gumbel is noise or passes no gradient


@dataclass
class _Window:
    """Sums over the forwards of a window, of this process and on its device."""

    counts: Tensor | None = None
    argmin_shares: Tensor | None = None
    forwards: int = 0

    def add(self, counts: Tensor, argmin_share: Tensor | None) -> None:
        self.counts = counts if self.counts is None else self.counts + counts
        self.forwards += 1
        if argmin_share is not None:
            self.argmin_shares = argmin_share if self.argmin_shares is None else self.argmin_shares + argmin_share


class CodebookMonitor:
    """Counts codes over log windows, and over longer windows for the alarm.

    Attributes:
        alarmed: Whether the codebook had collapsed in the last window of `codebook_alarm_steps` steps.
    """

    def __init__(self, trainer):
        self.trainer = trainer
        self.reset()

    def reset(self) -> None:
        self.alarmed = False
        self.choice_alarmed = False
        self._log, self._long = _Window(), _Window()
        self._restarted: Tensor | None = None
        self._codes: Tensor | None = None

    def forget_alarm(self) -> None:
        """Resets the alarm and its window: after k-means they are about codes that are gone."""
        self.alarmed, self._long = False, _Window()

    def remember_codes(self) -> None:
        """Stores the codes (K, C); drift is measured from here."""
        self._codes = self._current_codes().clone()

    def observe(self, outputs: Any) -> None:
        """Adds the code counts of a training forward."""
        counts = outputs.get("codebook_counts")
        if counts is not None:
            argmin_share = (outputs.get("codebook_statistics") or {}).get("argmin_share")
            for window in (self._log, self._long):
                window.add(counts.detach(), argmin_share)

    def count_restarts(self, moved: Tensor) -> None:
        self._restarted = moved if self._restarted is None else self._restarted + moved

    def logs(self) -> dict[str, float]:
        """Metrics of the current log window; starts the next one."""
        figures = self._figures(self._log)
        if self._log.counts is not None:
            counts = figures.pop("counts")
            figures["entropy"] = figures["perplexity"].log()
            figures["dead"] = self._dead_share(counts)
            if self._codes is not None:
                figures["drift"] = self._drift(self._codes, counts)
        self.remember_codes()
        if self._restarted is not None:
            figures["restarted"] = self._restarted
        self._log, self._restarted = _Window(), None
        return {name: float(value) for name, value in figures.items()}

    def check(self) -> None:
        """Updates the alarm from the long window and starts the next; call it every `codebook_alarm_steps` steps."""
        figures, args = self._figures(self._long), self.trainer.args
        self._long = _Window()
        if not figures:
            return
        usage, top_share = float(figures["usage"]), float(figures["top_share"])
        collapsed = usage < args.codebook_alarm_usage or top_share > args.codebook_alarm_top_share
        if collapsed and not self.alarmed:
            self._warn_of_collapse(usage, top_share)
        self.alarmed = collapsed
        if "argmin_share" in figures:
            share = float(figures["argmin_share"])
            closed = not _OPEN_CHOICE[0] <= share <= _OPEN_CHOICE[1]
            if closed and not self.choice_alarmed and self.trainer.is_world_process_zero():
                logger.warning(
                    f"Over the last {args.codebook_alarm_steps} steps, gumbel noise left {share:.0%} of the tokens at "
                    f"their nearest code; expected {_OPEN_CHOICE[0]:.0%} to {_OPEN_CHOICE[1]:.0%}. Above it no "
                    "gradient passes the choice, below it words are noise. Raise gumbel_temperature when it is too "
                    "high, lower it when it is too low, or use quantizer_gradient='straight_through'."
                )
            self.choice_alarmed = closed

    def state_dict(self) -> dict[str, Any]:
        """The long window over all processes; call it on all of them."""
        counts, shares = self._sum(self._long.counts), self._sum(self._long.argmin_shares)
        return {
            "alarmed": self.alarmed,
            "choice_alarmed": self.choice_alarmed,
            "counts": counts,
            "argmin_shares": None if shares is None else shares / self.trainer.args.world_size,
            "forwards": self._long.forwards,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.reset()
        self.alarmed, self.choice_alarmed = state["alarmed"], state["choice_alarmed"]
        device, counts, shares = self.trainer.args.device, state["counts"], state["argmin_shares"]
        if counts is not None:
            # A sum over processes, which one of them takes over.
            counts = counts.to(device) * int(self.trainer.args.process_index == 0)
            self._long = _Window(counts, None if shares is None else shares.to(device), state["forwards"])

    def _figures(self, window: _Window) -> dict[str, Tensor]:
        """Statistics and counts over all processes; empty if nothing was counted."""
        counts = self._sum(window.counts)
        if counts is None:
            return {}
        figures = {**codebook_statistics(counts), "counts": counts}
        shares = self._sum(window.argmin_shares)
        if shares is not None:
            figures["argmin_share"] = shares / (window.forwards * self.trainer.args.world_size)
        return figures

    def _sum(self, value: Tensor | None) -> Tensor | None:
        return None if value is None else self.trainer.accelerator.reduce(value.clone(), reduction="sum")

    def _dead_share(self, counts: Tensor) -> Tensor:
        """Share of codes used less than a threshold: by moving average, or in this window without one."""
        codebook = self.trainer.unwrapped_model.cbvila.codebook
        threshold = self.trainer.args.codebook_restart_threshold or _DEAD_BELOW
        if codebook.config.codebook_update == "ema":
            return codebook.dead_codes(threshold).float().mean()
        return (counts < threshold * counts.float().mean()).float().mean()

    def _drift(self, before: Tensor, counts: Tensor) -> Tensor:
        """Mean, over the codes in use, of 1 - cosine between their earlier (K, C) and current vectors."""
        turned = 1 - F.cosine_similarity(before, self._current_codes(), dim=-1)
        return turned[counts > 0].mean()

    def _current_codes(self) -> Tensor:
        codes = self.trainer.unwrapped_model.cbvila.codebook.codes.detach()
        return at_least_fp32(codes.full_tensor() if hasattr(codes, "full_tensor") else codes)  # FSDP2 shards them

    def _warn_of_collapse(self, usage: float, top_share: float) -> None:
        if not self.trainer.is_world_process_zero():
            return
        args, config = self.trainer.args, self.trainer.unwrapped_model.config
        if args.codebook_restart_threshold > 0 and config.codebook_update == "ema":
            first = "Unused codes restart until it recovers"
            first += ", once align_steps are over." if args.align_steps > 0 else "."
        else:
            first = "codebook_restart_threshold=0.3 with codebook_update='ema' would restart unused codes."
        logger.warning(
            f"The codebook collapses: over the last {args.codebook_alarm_steps} steps {usage:.1%} of its "
            f"{config.codebook_size} codes were used (alarm below {args.codebook_alarm_usage:.0%}), and the most "
            f"frequent one stood for {top_share:.1%} of the tokens (alarm above {args.codebook_alarm_top_share:.0%}). "
            f"{first} What else helps: codes that start from features (codebook_init, and codebook_refit for encoders "
            "that start from random weights), a longer burn_in_steps, a lower learning rate, codebook_norm='l2' with "
            "a small codebook_dim, mim_grad_to_vit=False, fewer codes."
        )
