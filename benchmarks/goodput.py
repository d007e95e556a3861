"""Measures goodput: which share of a pretraining run is forward, backward, clipping and optimizer, and what the rest.

Runs the recipe `pretrain-tiny` on scenes, which are drawn while they are read, from the bundled weights with
different numbers of loader workers: alignment (contrast alone, the cheapest steps), and all objectives. The first
steps of a run start the workers and are left out. The share of wall time means something on an idle machine only. That
of CPU time is of the training process, without its workers: without any, it is what wall time says on an idle machine.
"""

import tempfile
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from measuring import parser, positive, show
from transformers import TrainerCallback
from transformers.utils import logging

from transformers_cbvila.cli.pretrain import parse
from transformers_cbvila.training.pretrain import build_trainer

SKIPPED = 5  # first steps
CLOCKS = {"wall": time.perf_counter, "CPU": time.process_time}
PHASES = {"alignment": True, "all objectives": False}


class StepTimes(TrainerCallback):
    """Adds up the seconds from the begin of each step to the end of its optimizer step, and those of all steps."""

    def __init__(self) -> None:
        self.inside = dict.fromkeys(CLOCKS, 0.0)
        self.first: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self._begun: dict[str, float] = {}

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remembers when the step begins: its batch has been read."""
        self._begun = _now()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Adds the step, or begins to measure after the last one that is left out."""
        now = _now()
        if state.global_step < SKIPPED:  # the number of steps before this one
            self.first = now
            return
        self.last = now
        for name in CLOCKS:
            self.inside[name] += now[name] - self._begun[name]

    def shares(self) -> dict[str, float]:
        """Returns the share in per cent by each clock."""
        return {name: 100 * self.inside[name] / (self.last[name] - self.first[name]) for name in CLOCKS}


def _now() -> dict[str, float]:
    return {name: clock() for name, clock in CLOCKS.items()}


def run(workers: int, aligns: bool, steps: int, folder: Path) -> StepTimes:
    """Trains and returns the times of its steps."""
    steps += SKIPPED
    aligned = str(steps if aligns else 0)
    words = [
        *("--config", "pretrain-tiny", "--model", "cbvila-tiny", "--train_data", "scenes[rows=4000]"),
        *("--max_length", "32", "--codebook_refit", "false", "--codebook_restart_threshold", "0"),
        *("--max_steps", str(steps), "--align_steps", aligned, "--burn_in_steps", aligned),
        *("--dataloader_num_workers", str(workers), "--output_dir", str(folder), "--save_strategy", "no"),
        *("--lr_scheduler_type", "constant", "--lr_scheduler_kwargs", "{}"),
        *("--warmup_steps", "0", "--report_to", "none", "--disable_tqdm", "true", "--logging_strategy", "no"),
        *("--use_cpu", "true"),
    ]
    times = StepTimes()
    with redirect_stdout(StringIO()):
        trainer = build_trainer(*parse(words))
        trainer.add_callback(times)
        trainer.train()
    return times


def main() -> None:
    """Measures and prints the shares."""
    arguments = parser(__doc__, "python benchmarks/goodput.py --workers 0 2 --steps 30")
    arguments.add_argument("--workers", type=int, nargs="+", default=[0, 2, 4], metavar="N", help="default 0, 2 and 4")
    arguments.add_argument("--steps", type=positive, default=30, metavar="N", help="measured steps; default 30")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    for phase, aligns in PHASES.items():
        rows = {}
        for workers in options.workers:
            with tempfile.TemporaryDirectory() as folder:
                times = run(workers, aligns, options.steps, Path(folder))
            shares = times.shares()
            each = {name: (times.last[name] - times.first[name]) / options.steps for name in CLOCKS}
            rows[f"{workers} workers"] = (
                f"{shares['wall']:.1f} % of wall time, {1000 * each['wall']:.0f} ms a step; "
                f"{shares['CPU']:.1f} % of CPU time, {1000 * each['CPU']:.0f} ms"
            )
        print(f"{phase}, {options.threads} thread(s): forward, backward, clipping and optimizer are")
        show(rows)


if __name__ == "__main__":
    main()
