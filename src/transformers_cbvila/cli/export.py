"""The command `cbvila export`."""

from __future__ import annotations

import argparse
from typing import Any

from .parsing import Parser

EXAMPLE = """\
example:
  cbvila export cbvila-tiny-easyvqa --output_dir runs/onnx
  cbvila export runs/mine --output_dir runs/mine/onnx --int8 --data scenes --rows 1000

One ONNX graph for each tower and head, which take batches and texts of any size, with tokenizer, processor and
export.json. transformers_cbvila.CBViLAOnnxQuestionAnswering and CBViLAOnnxRetriever run them without torch. --data
measures how far the graphs are from the model: parity.json. What lies in the folder onnx of a model is published with
it.
"""


def parse(argv: list[str]) -> tuple[argparse.Namespace]:
    """Parses the command's arguments."""
    from ..data import option_texts

    parser = Parser(prog="cbvila export", description="Export a model as ONNX graphs.", epilog=EXAMPLE)
    parser.add_argument("model", help="folder, Hub id, or the name of a bundled checkpoint")
    parser.add_argument("--output_dir", required=True, metavar="FOLDER", help="folder to write to; made if needed")
    parser.add_argument(
        "--graphs", nargs="+", metavar="NAME", help="graphs to export, such as image_encoder (default: all)"
    )
    parser.add_argument("--int8", action="store_true", help="write int8 versions as well")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export in the folder")
    parser.add_argument(
        "--data", metavar="DATA", help=f"measure on these images and questions, or captions: {option_texts.SOURCES}"
    )
    parser.add_argument("--split", help=option_texts.MEASURED_SPLIT)
    parser.add_argument("--rows", type=int, default=1000, help="how many rows of DATA to measure on")
    options = parser.parse_args(argv)
    if options.rows < 1:
        parser.error(f"--rows {options.rows} must be at least 1")
    if options.data is None:
        parser.refuse(("split", "rows"), "nothing is measured without --data", "give both, or leave it out")
    return (options,)


def run(options: argparse.Namespace) -> int:
    """Exports, and measures where there is data."""
    from ..export.onnx_export import export_onnx

    folder = export_onnx(
        options.model,
        options.output_dir,
        graphs=options.graphs,
        int8=options.int8,
        overwrite=options.overwrite,
    )
    print(f"Export: {folder}")
    if options.data is not None:
        from ..export.parity import measure_parity
        from ..onnx_runtime.export_files import PARITY

        _print(measure_parity(options.model, folder, options.data, options.split, options.rows))
        print(f"Parity: {folder / PARITY}")
    return 0


def _print(report: dict[str, Any]) -> None:
    for form, size in report["bytes"].items():
        print(
            f"{form}: {size / 1e6:.1f} MB, {report['milliseconds_per_row'][form]:.2f} ms for each row, of torch "
            f"{report['milliseconds_per_row']['torch']:.2f}"
        )
