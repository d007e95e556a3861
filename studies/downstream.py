"""Fine-tunes a pretrained model and random weights for the downstream tasks, and tabulates what both reach.

Example:
  python -m studies.downstream --output_dir runs/downstream --tasks scenes-vqa --seeds 0
  python -m studies.downstream --packs packs --output_dir runs/downstream --jobs 2
  python -m studies.downstream --packs packs --tasks emoji nlvr1 --seeds 0

Each run is a `cbvila finetune` and a `cbvila evaluate` of each split, whose options are a recipe in recipes/ and those
of `downstream_tasks.py`; `log.txt` in the run's folder has them and what they printed. Finished runs are kept,
interrupted ones go on. Tasks on built-in sources need no packs.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from transformers_cbvila.bundled import local_or_hub_id
from transformers_cbvila.data.builtin_sources import find_builtin

from .blank import blank_copy
from .commands import run_commands
from .downstream_tasks import BY_MATCHING, TASKS
from .table import interval, markdown, mean

RECIPES = Path(__file__).parents[1] / "src" / "transformers_cbvila" / "recipes"
STARTS = ("zero-shot", "text-only-random", "text-only-pretrained", "random", "pretrained")
BLANK = "blank"  # folder of the packs that text-only runs read


@dataclass(frozen=True)
class Run:
    """One start and one seed of a task."""

    name: str
    start: str
    seed: int
    model: str
    packs: Path | None
    folder: Path

    @property
    def is_text_only(self) -> bool:
        """Whether all images are blank."""
        return self.start.startswith("text-only")

    @property
    def results(self) -> dict[str, Path]:
        """Where the figures of each split go."""
        first, *others = TASKS[self.name].splits
        result = self.folder.with_suffix(".json")
        return {first: result, **{split: result.with_stem(f"{result.stem}-{split}") for split in others}}

    @property
    def is_finished(self) -> bool:
        """Whether every split is measured."""
        return all(result.is_file() for result in self.results.values())

    @property
    def commands(self) -> Iterator[list[str]]:
        """Arguments of `cbvila`: a fine-tuning, unless nothing is trained, and a measurement of each split."""
        task, measured = TASKS[self.name], self.model
        train_data = ["--train_data", *(self._source(name) for name in task.train_data)]
        options = [*task.options, *(["--image_data", self._source(task.image_data)] if task.image_data else [])]
        if self.start != "zero-shot":
            measured = str(self.folder)
            yield [
                *("finetune", task.task, "--config", str(RECIPES / f"{task.recipe}.yaml"), "--model", self.model),
                *(*train_data, *options, "--seed", str(self.seed)),
                *("--output_dir", str(self.folder), "--resume", "--report_to", "none"),
                *(["--from_scratch"] if self.start.endswith("random") else []),
            ]
        floors = [] if task.task == "retrieval" else train_data
        for split, result in self.results.items():
            yield [
                *("evaluate", task.task, "--model", measured, "--data", self._source(task.data), "--split", split),
                *options,
                *floors,
                *("--output", str(result)),
            ]

    def _source(self, name: str) -> str:
        if find_builtin(name) is not None:
            return f"{name}[blank=true]" if self.is_text_only else name
        assert self.packs is not None, f"{name} is a pack"
        return str(self.packs / name)


def main(argv: list[str] | None = None) -> int:
    """Runs what is missing, and writes and prints the table."""
    parser = command_line()
    options = parser.parse_args(argv)
    for name in options.tasks or ():
        if TASKS[name].packs and options.packs is None:
            parser.error(f"{name} needs {', '.join(TASKS[name].packs)}: give the folder of these packs with --packs")
    runs = list(wanted_runs(options))
    missing = [run for run in runs if not run.is_finished]
    for model in dict.fromkeys(run.model for run in missing):
        local_or_hub_id(model)  # an error, before anything runs
    write_blank_packs(missing, options.packs, options.output_dir / BLANK)
    run_all(missing, options.jobs)
    text = table(figures_of(runs))
    options.output_dir.mkdir(parents=True, exist_ok=True)
    (options.output_dir / "table.md").write_text(text)
    print(text)
    return 0


def command_line() -> argparse.ArgumentParser:
    """Returns the parser of the options."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.downstream",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--packs", type=Path, help="folder of the packs: emoji, openclipart, nlvr1 …")
    parser.add_argument("--model", help="pretrained model (default: cbvila-scenes for scenes, else cbvila-tiny)")
    every = "run only these tasks (default: those that need no packs; with --packs all)"
    parser.add_argument("--tasks", nargs="+", choices=TASKS, help=every)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/downstream"), help="default: %(default)s")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time, one thread each")
    return parser


def wanted_runs(options: argparse.Namespace) -> Iterator[Run]:
    """All runs, seed by seed; what is measured without training has one seed."""
    names = options.tasks or [name for name, task in TASKS.items() if options.packs is not None or not task.packs]
    for seed in options.seeds:
        for name in names:
            for start in STARTS:
                zero_shot, text_only = start == "zero-shot", start.startswith("text-only")
                if zero_shot and (TASKS[name].task != "retrieval" or seed != options.seeds[0]):
                    continue
                if text_only and not TASKS[name].text_only:
                    continue
                folder = options.output_dir / name / (start if zero_shot else f"{start}-seed{seed}")
                packs = options.output_dir / BLANK if text_only else options.packs
                yield Run(name, start, seed, options.model or TASKS[name].model, packs, folder)


def write_blank_packs(runs: Sequence[Run], packs: Path | None, blank: Path) -> None:
    """Writes the packs that the text-only runs among `runs` read, from those with pictures."""
    names = [pack for run in runs if run.is_text_only for pack in TASKS[run.name].packs]
    for pack in dict.fromkeys(names):
        assert packs is not None, f"{pack} is a pack"
        blank_copy(packs / pack, blank / pack)


def run_all(runs: Sequence[Run], jobs: int) -> None:
    """Runs what has no result yet; a bar shows the time that remains.

    Raises:
        subprocess.CalledProcessError: A command failed; the others are finished before.
    """
    with ThreadPoolExecutor(jobs) as pool, tqdm(total=len(runs), desc="Runs", unit="run", smoothing=0) as bar:
        for done in as_completed([pool.submit(_run, run) for run in runs]):
            done.result()
            bar.update()


def _run(run: Run) -> None:
    run_commands(run.commands, run.folder)


Found = tuple[Run, str, dict[str, Any]]  # a run, a split, and what was measured on it


def figures_of(runs: Sequence[Run]) -> list[Found]:
    """What was measured of the runs, split by split."""
    results = [(run, split, result) for run in runs for split, result in run.results.items()]
    return [(run, split, json.loads(result.read_text())) for run, split, result in results if result.is_file()]


def table(found: Sequence[Found]) -> str:
    """Markdown: for each task and figure its floor and what each start reaches, and what pretraining adds, by seed."""
    rows = []
    for name, split in [(name, split) for name, task in TASKS.items() for split in task.splits]:
        by_start: dict[str, dict[int, dict[str, Any]]] = {start: {} for start in STARTS}
        for run, measured_on, figures in found:
            if (run.name, measured_on) == (name, split):
                by_start[run.start][run.seed] = figures
        measured = [figures for runs in by_start.values() for figures in runs.values()]
        if measured:
            label = name if split == TASKS[name].splits[0] else f"{name}, {split}"
            rows += [[label, figure, *_cells(figure, measured[0], by_start)] for figure in TASKS[name].figures]
    head = ["task", "figure", *(f"{name} %" for name in ("floor", *STARTS)), "difference", "seeds"]
    return markdown(head, rows) + "\n"


def _cells(figure: str, any_run: dict[str, Any], by_start: dict[str, dict[int, dict[str, Any]]]) -> list[str]:
    plain = next((figure.removesuffix(end) for end in BY_MATCHING if figure.endswith(end)), figure)
    floors = [any_run[name] for end in ("", "_majority", "_text_only") if (name := f"{plain}{end}_floor") in any_run]
    values = {start: {seed: 100 * f[figure] for seed, f in runs.items()} for start, runs in by_start.items()}
    seeds = sorted(set(values["random"]) & set(values["pretrained"]))
    return [
        f"{100 * max(floors):.2f}" if floors else "–",
        *(_measured(figure, list(by_start[start].values())) for start in STARTS),
        interval([values["pretrained"][seed] - values["random"][seed] for seed in seeds]),
        str(len(seeds)),
    ]


def _measured(figure: str, runs: Sequence[dict[str, Any]]) -> str:
    """Mean and deviation over seeds, and the interval that the test set's size leaves, its bounds' mean over seeds."""
    if not runs:
        return "–"
    values, low, high = ([100 * run[f"{figure}{end}"] for run in runs] for end in ("", "_low", "_high"))
    return f"{mean(values)} [{statistics.fmean(low):.1f}, {statistics.fmean(high):.1f}]"


if __name__ == "__main__":
    sys.exit(main())
