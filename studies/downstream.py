"""Fine-tunes a pretrained model and random weights for the downstream tasks, and tabulates what both reach.

Example:
  python -m studies.downstream --packs packs --output_dir runs/downstream --jobs 2
  python -m studies.downstream --packs packs --tasks emoji nlvr1 --seeds 0

Each run is a `cbvila finetune` and a `cbvila evaluate`, whose options are a recipe in recipes/ and the lines below;
`log.txt` in the run's folder has them and what they printed. Finished runs are kept, interrupted ones go on.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from .blank import blank_copy
from .table import interval, markdown, mean

RECIPES = Path(__file__).parents[1] / "src" / "transformers_cbvila" / "recipes"
STARTS = ("zero-shot", "text-only-random", "text-only-pretrained", "random", "pretrained")
BLANK = "blank"  # folder of the packs that text-only runs read
RECALLS = tuple(
    f"{way}_retrieval_r{k}{ending}" for ending in ("", "_combined") for way in ("text", "image") for k in (1, 10)
)


@dataclass(frozen=True)
class Task:
    """What is learned from which packs, and what is measured.

    Args:
        task: Of `cbvila finetune` and `cbvila evaluate`.
        recipe: In recipes/.
        train_data: Folders or files in the folder of packs, or easy-vqa.
        data, split: What is measured on.
        figures: Of what `cbvila evaluate` writes.
        options: Of both commands.
        image_data: The pack whose photos the rows are joined with, if they have none of their own.
        text_only: Whether both starts are fine-tuned with blank pictures, too: floors for texts that differ, where
            the most frequent answer to each text is no floor.
    """

    task: str
    recipe: str
    train_data: tuple[str, ...]
    data: str
    split: str
    figures: tuple[str, ...]
    options: tuple[str, ...] = ()
    image_data: str | None = None
    text_only: bool = False


_FLICKR8K = ("flickr8k-700", "flickr8k-rest")
TASKS = {
    "emoji": Task("retrieval", "finetune-retrieval-emoji", ("emoji",), "emoji", "test", RECALLS),
    "openclipart": Task(
        "retrieval", "finetune-retrieval-openclipart", ("openclipart",), "openclipart", "test", RECALLS
    ),
    "flickr8k": Task(
        "retrieval",
        "finetune-retrieval-flickr8k",
        _FLICKR8K,
        _FLICKR8K[0],
        "validation",
        RECALLS,
        options=("--max_length", "48"),  # as the recipe, which only the first command reads
    ),
    "entailment": Task(
        "entailment",
        "finetune-entailment-snli-ve",
        ("snli-ve-mini", "snli-ve-rest"),
        "snli-ve-mini",
        "validation",
        ("accuracy",),
        options=("--image_id_column", "image_id"),
        image_data="flickr8k-rest",
        text_only=True,
    ),
    "nlvr1": Task(
        "reasoning",
        "finetune-reasoning-nlvr1",
        ("nlvr1-train-sample", "nlvr1/test.parquet"),
        "nlvr1",
        "validation",
        ("accuracy", "consistency"),
        options=("--protocol", "nlvr1"),
        text_only=True,
    ),
    "easy-vqa": Task("vqa", "finetune-vqa-easy", ("easy-vqa",), "easy-vqa", "test", ("accuracy", "accuracy_other")),
}


@dataclass(frozen=True)
class Run:
    """One start and one seed of a task."""

    name: str
    start: str
    seed: int
    model: str
    packs: Path
    folder: Path

    @property
    def result(self) -> Path:
        """Where the figures go."""
        return self.folder.with_suffix(".json")

    @property
    def commands(self) -> Iterator[list[str]]:
        """Arguments of `cbvila`: one or two commands."""
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
        yield [
            *("evaluate", task.task, "--model", measured, "--data", self._source(task.data), "--split", task.split),
            *options,
            *floors,
            *("--output", str(self.result)),
        ]

    def _source(self, name: str) -> str:
        return name if name == "easy-vqa" else str(self.packs / name)


def main(argv: list[str] | None = None) -> int:
    """Runs what is missing, and writes and prints the table."""
    options = command_line().parse_args(argv)
    runs = list(wanted_runs(options))
    missing = [run for run in runs if not run.result.is_file()]
    write_blank_packs(missing, options.packs, options.output_dir / BLANK)
    run_all(missing, options.jobs)
    text = table(figures_of(runs))
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
    parser.add_argument("--packs", required=True, type=Path, help="folder of the packs: emoji, openclipart, nlvr1 …")
    parser.add_argument("--model", default="cbvila-tiny", help="pretrained model (default: %(default)s)")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="run only these tasks")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/downstream"), help="default: %(default)s")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time, one thread each")
    return parser


def wanted_runs(options: argparse.Namespace) -> Iterator[Run]:
    """All runs, seed by seed; what is measured without training has one seed."""
    for seed in options.seeds:
        for name in options.tasks:
            for start in STARTS:
                zero_shot, text_only = start == "zero-shot", start.startswith("text-only")
                if zero_shot and (TASKS[name].task != "retrieval" or seed != options.seeds[0]):
                    continue
                if text_only and not TASKS[name].text_only:
                    continue
                folder = options.output_dir / name / (start if zero_shot else f"{start}-seed{seed}")
                packs = options.output_dir / BLANK if text_only else options.packs
                yield Run(name, start, seed, options.model, packs, folder)


def write_blank_packs(runs: Sequence[Run], packs: Path, blank: Path) -> None:
    """Writes the packs that the text-only runs among `runs` read, from those with pictures."""
    tasks = [TASKS[run.name] for run in runs if run.start.startswith("text-only")]
    sources = [name for task in tasks for name in (*task.train_data, task.data, task.image_data) if name]
    for pack in dict.fromkeys(Path(name).parts[0] for name in sources):
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
    run.folder.mkdir(parents=True, exist_ok=True)
    # A run sees one thread whatever the machine has, so that its sums are those of the others.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (run.folder / "log.txt").open("a") as log:
        for arguments in run.commands:
            print(shlex.join(["cbvila", *arguments]), file=log, flush=True)
            command = [sys.executable, "-m", "transformers_cbvila", *arguments]
            subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environment, check=True)


def figures_of(runs: Sequence[Run]) -> list[tuple[Run, dict[str, Any]]]:
    """The runs that are finished, with what was measured of them."""
    return [(run, json.loads(run.result.read_text())) for run in runs if run.result.is_file()]


def table(found: Sequence[tuple[Run, dict[str, Any]]]) -> str:
    """Markdown: for each task and figure its floor and what each start reaches, and what pretraining adds, by seed."""
    rows = []
    for name, task in TASKS.items():
        by_start: dict[str, dict[int, dict[str, Any]]] = {start: {} for start in STARTS}
        for run, figures in found:
            if run.name == name:
                by_start[run.start][run.seed] = figures
        measured = [figures for runs in by_start.values() for figures in runs.values()]
        if measured:
            rows += [[name, figure, *_cells(figure, measured[0], by_start)] for figure in task.figures]
    head = ["task", "figure", *(f"{name} %" for name in ("floor", *STARTS)), "difference", "seeds"]
    return markdown(head, rows) + "\n"


def _cells(figure: str, any_run: dict[str, Any], by_start: dict[str, dict[int, dict[str, Any]]]) -> list[str]:
    plain = figure.removesuffix("_combined")
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
