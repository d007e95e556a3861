"""The command `cbvila resize-codebook`."""

from __future__ import annotations

import argparse
from typing import Any

from ..metric_lines import print_metrics
from .parsing import Parser

EXAMPLE = """\
example:
  cbvila resize-codebook cbvila-tiny --codes 64 --data scenes --split validation --output_dir runs/tiny-64
  cbvila resize-codebook runs/mine --codes 512 --method most_used --output_dir runs/mine-512

dkm (differentiable k-means) and most_used make fewer codes, ikm (inverse k-means) more, in a minute for 256 codes and
in time that grows with the square of their number; nothing is trained. With --data, the terminal and resized.json in
the folder say what the change costs on these images: error of reconstruction, use of codes and bits per token, before
and after (_before). A linear MIM head takes the weights of the nearest previous codes.
"""
METHODS = ("dkm", "ikm", "most_used")
_OF_DATA = ("split", "image_column", "caption_column")


def parse(argv: list[str]) -> tuple[argparse.Namespace]:
    """Parses the command's arguments."""
    from ..data import option_texts

    parser = Parser(
        prog="cbvila resize-codebook",
        description="Change the number of codes of a trained model, without further training.",
        epilog=EXAMPLE,
    )
    parser.add_argument("model", help="folder, Hub id, or the name of a bundled checkpoint")
    parser.add_argument("--codes", type=int, required=True, metavar="K", help="new number of codes")
    parser.add_argument(
        "--method", choices=METHODS, help="how the codes are made (default: dkm for fewer codes, ikm for more)"
    )
    parser.add_argument("--output_dir", required=True, metavar="NEW_FOLDER", help="folder for the new model")
    parser.add_argument("--data", metavar="DATA", help=f"images to measure on: {option_texts.SOURCES}")
    parser.add_argument("--split", help=option_texts.MEASURED_SPLIT)
    parser.add_argument("--image_column", default="image", help=option_texts.IMAGE_COLUMN)
    parser.add_argument("--caption_column", help=option_texts.CAPTION_COLUMN)
    options = parser.parse_args(argv)
    if not options.data:
        parser.refuse(_OF_DATA, "nothing is measured without --data", "give both, or leave it out")
    return (options,)


def run(options: argparse.Namespace) -> int:
    """Resizes the model, measures both where there is data, and writes the new one."""
    from pathlib import Path

    from ..model.codebook_resizing_cbvila import resize_codebook, resized_codes
    from ..output_files import write_json
    from ..output_folders import is_free
    from .checkpoints import load_pretrained

    if not is_free(options.output_dir):
        raise ValueError(f"{options.output_dir} is there already; name another folder, or move it away.")
    model, processor = load_pretrained("resize-codebook", options.model)
    made = resized_codes(model, options.codes, options.method)
    resized, left_out = resize_codebook(model, made.codes, made.counts)
    before = model.cbvila.quantizer.num_codes
    report = {"method": made.method, "codes_before": before, "codes": options.codes}
    if options.data:
        report |= _measure(model, resized, processor, options)
    resized.save_pretrained(options.output_dir)
    processor.save_pretrained(options.output_dir)
    write_json(Path(options.output_dir, "resized.json"), report)
    print_metrics(report)
    for name in left_out:
        print(f"The objective {name!r} was left out: its weights depend on the number of codes.")
    if not options.data:
        print("What this costs was not measured: give images with --data.")
    print(f"Model: {options.output_dir}")
    return 0


def _measure(model: Any, resized: Any, processor: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Returns the metrics of both models on the data, those of the given one with `_before` in their names."""
    from ..data.source_rows import split_as_read, usual_split
    from ..data.sources import load_pairs
    from ..inspection.codebook_rates import measure_rate

    split = options.split or usual_split([options.data])
    rows = load_pairs(options.data, split, options.image_column, options.caption_column)
    before, after = (measure_rate(which, processor, rows) for which in (model, resized))
    named = {_before(name): value for name, value in before.items()}
    return {"data": options.data, "split": split_as_read([options.data], split), **named, **after}


def _before(name: str) -> str:
    """Returns the name of a metric of the given model; bounds of an interval keep their ending."""
    for end in ("_low", "_high"):
        if name.endswith(end):
            return f"{name.removesuffix(end)}_before{end}"
    return f"{name}_before"
