"""`cbvila data`."""

from typing import Any

from .parsing import Parser

EXAMPLE = """\
example:
  cbvila data scenes --output_dir scenes --rows 5000 --split train
  cbvila data scenes[size=96,style=noisy] --output_dir scenes-vqa --task vqa --split test --seed 3

The file SPLIT.parquet has an image a row, its texts, and all that is true of it: objects with boxes, a label map and
how objects lie to each other. The folder is a source as any other: --train_data scenes.
"""


def parse(argv: list[str]) -> tuple[Any, ...]:
    """Returns the options of the command line."""
    parser = Parser(
        prog="cbvila data",
        description="Write drawn scenes to Parquet files, for other tools.",
        epilog=EXAMPLE,
    )
    parser.add_argument("source", help="scenes, or scenes with options in brackets: scenes[size=96,objects=4]")
    parser.add_argument("--output_dir", required=True, metavar="FOLDER", help="folder for the file; made if needed")
    parser.add_argument("--split", default="train", help="train, validation, test, test_compositional or confusers")
    parser.add_argument(
        "--task", default="pretraining", help="pretraining, retrieval, vqa, entailment or reasoning: what rows are for"
    )
    parser.add_argument("--rows", type=int, help="number of rows (default: that of the split)")
    parser.add_argument("--seed", type=int, help="seed of all that is drawn (default: 0)")
    return (parser.parse_args(argv),)


def run(options: Any) -> int:
    """Writes the rows."""
    from dataclasses import replace

    from ..data.builtin_sources import find_builtin
    from ..data.scenes.export import export_scenes
    from ..data.scenes.options import SceneOptions
    from ..data.scenes.scene_rows import SceneRows
    from ..data.scenes.source import ScenesSource
    from ..model.messages_cbvila import shown

    source = find_builtin(options.source)
    if not isinstance(source, ScenesSource):
        raise ValueError(f"{shown(options.source)} is no data that can be written; give scenes, or scenes[key=value].")
    given = {name: value for name in ("rows", "seed") if (value := getattr(options, name)) is not None}
    for name, value in given.items():
        if getattr(source.options, name) not in (value, getattr(SceneOptions, name)):
            raise ValueError(f"{name}={value}: {shown(options.source)} gives another number; leave one of them out.")
    rows = SceneRows(replace(source.options, **given), options.split, options.task)
    print(f"{len(rows):,} rows: {export_scenes(rows, options.output_dir)}")
    return 0
