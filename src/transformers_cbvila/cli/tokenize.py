"""The command `cbvila tokenize`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .checkpoints import load_pretrained
from .parsing import Parser
from .processes import Processes, joined_processes

EXAMPLE = """\
example:
  cbvila tokenize scenes[rows=500] --split test --model cbvila-tiny --output_dir runs/words
  cbvila tokenize runs/words --decode --output_dir runs/pictures
  accelerate launch --num_processes 8 -m transformers_cbvila tokenize my_folder --model runs/mine --output_dir words

Files of the folder (tokens-000000.parquet …, tokens.json) have a row for each image: its row in the split, its source
(the path of its file, if it has one), the grid of its patches and the ids of their codes, in reading order (with
several books, all ids of a patch after each other). Data is streamed; captions are not needed. The same command goes
on after an interruption, and any number of processes writes the same files. --decode draws the pictures of such a
folder, from ids alone, as PNG files.
"""
INTERRUPTED = "Interrupted. The same command goes on with the files that are not there yet."
_OF_IMAGES = ("split", "image_column", "rows_per_file", "skip_bad_rows")  # options of reading and writing them


def parse(argv: list[str]) -> tuple[argparse.Namespace]:
    """Parses the command's arguments."""
    from ..data import option_texts

    parser = Parser(
        prog="cbvila tokenize",
        usage="cbvila tokenize DATA --output_dir FOLDER [--model MODEL] [OPTION ...]",
        description="Write the visual words of images to Parquet files, or draw images from such files.",
        epilog=EXAMPLE,
    )
    parser.add_argument("data", help=f"{option_texts.SOURCES}; with --decode, a folder that this command wrote")
    parser.add_argument("--output_dir", required=True, metavar="FOLDER", help="folder to write to; made if needed")
    parser.add_argument(
        "--model", help="folder, Hub id, or the name of a bundled checkpoint; with --decode, by default the same one"
    )
    parser.add_argument("--decode", action="store_true", help="draw pictures from the visual words in DATA")
    parser.add_argument("--split", help=f"{option_texts.MEASURED_SPLIT} Not with --decode.")
    parser.add_argument("--image_column", default="image", help=option_texts.IMAGE_COLUMN)
    parser.add_argument("--batch_size", type=int, default=64, help="images at a time")
    parser.add_argument("--rows_per_file", type=int, default=1000, help="rows of each file, which a process writes")
    parser.add_argument(
        "--skip_bad_rows",
        action="store_true",
        help="leave out images that cannot be read, and name the first ones; without, one is an error that names it",
    )
    options = parser.parse_args(argv)
    if options.decode:
        parser.refuse(_OF_IMAGES, "--decode draws all files of DATA")
    elif options.model is None:
        parser.error("the following arguments are required: --model")
    for name in ("batch_size", "rows_per_file"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} {getattr(options, name)} must be at least 1")
    return (options,)


def run(options: argparse.Namespace) -> int:
    """Writes visual words, or draws them."""
    with joined_processes() as processes:
        (_decode if options.decode else _encode)(options, processes)
    return 0


def _encode(options: argparse.Namespace, processes: Processes) -> None:
    from ..data.image_rows import ImageRows
    from ..data.source_rows import split_as_read, usual_split
    from ..inspection.token_files import TokenWriter, check_folder, describe_tokens, start_folder, token_files

    split = options.split or usual_split([options.data])
    rows = ImageRows(options.data, split, options.image_column)
    model, processor = load_pretrained("tokenize", options.model, processes.device)
    given = {name: getattr(options, name) for name in ("model", "data", "image_column", "rows_per_file", "batch_size")}
    given |= {
        "split": split_as_read([options.data], split),
        "rows": rows.count,
        "skip_bad_rows": options.skip_bad_rows,
    }
    description = describe_tokens(model, processor, given)
    if processes.is_main:
        start_folder(options.output_dir, description)
    processes.wait()
    check_folder(options.output_dir, description)
    sizes = (options.rows_per_file, options.batch_size, options.skip_bad_rows)
    writer = TokenWriter(model, processor, Path(options.output_dir), *sizes)
    written = writer.write(rows, processes.index, processes.count)
    if writer.skipped:
        from ..data.bad_rows import summary_of_bad_rows

        print(summary_of_bad_rows(writer.skipped), file=sys.stderr)
    print(f"{written:,} rows tokenized{_by(processes)}.")
    processes.wait()
    if processes.is_main:
        print(f"Visual words: {len(token_files(options.output_dir)):,} files in {options.output_dir}")


def _decode(options: argparse.Namespace, processes: Processes) -> None:
    from ..inspection.token_files import read_tokens_description
    from ..inspection.token_pictures import draw_tokens, write_origins

    name = options.model or read_tokens_description(options.data)["model"]
    model, processor = load_pretrained("tokenize --decode", name, processes.device)
    places = {"process": processes.index, "processes": processes.count}
    drawn = draw_tokens(options.data, options.output_dir, model, processor, options.batch_size, **places)
    print(f"{drawn:,} pictures drawn{_by(processes)}.")
    processes.wait()
    if processes.is_main:
        print(f"Pictures: {write_origins(options.data, options.output_dir):,} in {options.output_dir}")


def _by(processes: Processes) -> str:
    return "" if processes.count == 1 else f" by process {processes.index + 1} of {processes.count}"
