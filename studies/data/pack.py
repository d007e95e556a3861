"""The folder that a pack is written to, and the options of the scripts that write one."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Features
from datasets.utils.logging import disable_progress_bar


def options(prog: str, description: str, args: Sequence[str] | None) -> argparse.Namespace:
    """Returns `output_dir` and `packages` from the command line."""
    parser = argparse.ArgumentParser(
        prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output_dir", required=True, type=Path, help="folder of the Parquet files and their README")
    parser.add_argument(
        "--packages",
        type=Path,
        default=Path(".cache/packages"),
        help="folder of the packages' archives; what is not there is downloaded into it (default: %(default)s)",
    )
    return parser.parse_args(args)


def write_pack(folder: Path, splits: Mapping[str, list[dict[str, Any]]], features: Features, readme: str) -> None:
    """Writes the rows of each split as `SPLIT.parquet`, and `README.md` beside them."""
    disable_progress_bar()
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        columns = {name: [row[name] for row in rows] for name in features}
        Dataset.from_dict(columns, features=features).to_parquet(folder / f"{split}.parquet")
        print(f"{folder / split}.parquet: {len(rows)} rows", flush=True)
    (folder / "README.md").write_text(readme)
