"""Runs a study cell by cell: finished cells are kept, the remaining time is printed, tables are written at the end.

Example:
  python -m studies.run studies/table4-scenes-none.yaml --output_dir runs/study --jobs 2
  python -m studies.run studies/table4.yaml --emoji packs/emoji --output_dir runs/study --jobs 2
"""

import argparse
import multiprocessing
import os
import sys
import traceback
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from .artists import split_by_artist
from .cell import Cell, run_cell
from .grid import Study
from .table import tables


def main(argv: list[str] | None = None) -> int:
    """Runs the studies; writes and prints their tables. The exit status is 1 if a cell failed."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("studies", nargs="+", help="YAML files of studies")
    parser.add_argument("--emoji", help="folder of the emoji (Parquet, with a column 'artist'), for studies by artist")
    parser.add_argument("--more_train_data", nargs="*", default=[], help="more folders of training pairs")
    parser.add_argument("--output_dir", default="runs/study", help="where cells and tables go (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="cells at a time, one thread each")
    parser.add_argument("--arms", nargs="+", help="run only these arms")
    parser.add_argument("--seeds", nargs="+", type=int, help="run only these seeds")
    options = parser.parse_args(argv)
    folder = Path(options.output_dir)
    try:
        studies = [_read(Path(path), options.emoji) for path in options.studies]
        _check_arms(options.arms or [], studies)
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    finished = True
    for study in studies:
        train_data, test_data = _data_of(study, options.emoji, folder / "data")
        cells = list(study.cells((*train_data, *options.more_train_data), test_data, folder))
        finished &= run_cells([cell for cell in cells if _wanted(cell, options)], options.jobs)
        text = tables(study, [found for cell in cells if (found := cell.found()) is not None])
        (folder / study.name).mkdir(parents=True, exist_ok=True)
        (folder / study.name / "table.md").write_text(text)
        print(text)
    return 0 if finished else 1


def run_cells(cells: list[Cell], jobs: int) -> bool:
    """Runs the cells that are not finished, each in its own process and first those that others start from.

    A progress bar shows the remaining time. The error of a cell is printed at once, and the others go on, but for
    those that start from it.

    Returns:
        Whether all cells are finished.
    """
    missing = [cell for cell in cells if not cell.is_finished]
    print(f"{len(cells) - len(missing)} of {len(cells)} cells are there; {len(missing)} to run.", file=sys.stderr)
    return all([_run(wanted, jobs) for wanted in (*_starts(missing), missing) if wanted])


def _starts(cells: list[Cell]) -> list[list[Cell]]:
    """Returns the cells that others start from and that are not there, level by level, the deepest first."""
    starts = {cell.start.result: cell.start for cell in cells if cell.start is not None}
    missing = [start for start in starts.values() if not start.result.is_file()]
    return [*_starts(missing), missing] if missing else []


def _run(cells: list[Cell], jobs: int) -> bool:
    # One thread per cell on every machine, so that times and floating-point sums are comparable.
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        running = {pool.submit(run_cell, cell): cell for cell in cells}
        with tqdm(total=len(cells), desc="Cells", unit="cell", smoothing=0) as bar:
            for done in as_completed(running):
                bar.update()
                bar.write(f"{running[done].arm}, seed {running[done].seed}: {_outcome(done)}")
    return all(done.exception() is None for done in running)


def _outcome(done: Future[dict[str, Any]]) -> str:
    """Says how a cell ended."""
    error = done.exception()
    if error is not None:
        return "".join(traceback.format_exception(error)).rstrip()
    return f"{done.result()['train_cpu_seconds']:.0f} CPU-seconds of pretraining"


def _read(path: Path, emoji: str | None) -> Study:
    """Returns a study that can be run with this folder of the emoji, if any.

    Raises:
        FileNotFoundError: If there is no such study; the message names those beside it.
        ValueError: If it is not valid, or needs the emoji.
    """
    if not path.is_file():
        names = sorted(other.stem for other in path.parent.glob("*.yaml") if not other.name.startswith("cell"))
        raise FileNotFoundError(f"there is no study {path}" + (f"; beside it are {', '.join(names)}" if names else ""))
    study = Study.read(path)
    if study.train_artists is not None and not emoji:
        raise ValueError(
            f"{study.name} splits the emoji by artist: give their folder with --emoji (`make data DATA=FOLDER` builds "
            "FOLDER/emoji)"
        )
    return study


def _check_arms(wanted: list[str], studies: list[Study]) -> None:
    """Raises a ValueError for an arm that no study has."""
    known = list(dict.fromkeys(arm for study in studies for arm in study.arms))
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise ValueError(f"there is no arm {', '.join(unknown)}; there are {', '.join(known)}")


def _data_of(study: Study, emoji: str | None, folder: Path) -> tuple[list[str], str]:
    """Returns the sources of training pairs and the source to measure on."""
    if study.train_data is not None and study.test_data is not None:
        return study.train_data, study.test_data
    assert emoji is not None and study.train_artists is not None and study.test_artist is not None
    data = str(split_by_artist(emoji, study.train_artists, study.test_artist, folder))
    return [data], data


def _wanted(cell: Cell, options: argparse.Namespace) -> bool:
    return (not options.arms or cell.arm in options.arms) and (not options.seeds or cell.seed in options.seeds)


if __name__ == "__main__":
    sys.exit(main())
