"""`cbvila inspect`."""

import sys
from pathlib import Path
from typing import Any

from ..metric_lines import print_metrics
from .parsing import Parser

EXAMPLE = """\
example:
  cbvila inspect cbvila-tiny --data data/emoji --split test --output emoji.json --page emoji.html
  cbvila inspect runs/mine --data easy-vqa --rerank_k 0

The figures say how many codes are used, what masked image modelling and the pixel head reach beside their floors, and
how often the right caption or image is found, by similarity and when matching orders the best --rerank_k candidates
anew. The page shows pictures drawn from visual words (the paper's Fig. 2), patches that share a code (Fig. 3) and maps
of codes; it is one file with everything in it.
"""


def parse(argv: list[str]) -> tuple[Any, ...]:
    parser = Parser(
        prog="cbvila inspect",
        description="Measure a pretrained model on images with captions.",
        epilog=EXAMPLE,
    )
    parser.add_argument("model", help="folder, Hub id, or the name of a bundled checkpoint")
    parser.add_argument("--data", required=True, help="folder, file (Parquet, CSV, .tar …), Hub id, or easy-vqa")
    parser.add_argument("--split", help="split of the data (default: test, else validation, else the only one)")
    parser.add_argument("--image_column", default="image")
    parser.add_argument("--caption_column", help="default: captions, caption or text, whichever there is")
    parser.add_argument(
        "--rerank_k", type=int, default=64, help="candidates per query that matching orders; 0: none (default: 64)"
    )
    parser.add_argument(
        "--skip_bad_rows", action="store_true", help="leave out rows with a broken image or no caption, and count them"
    )
    parser.add_argument("--output", metavar="FILE.json", help="file to write the figures to")
    parser.add_argument("--page", metavar="FILE.html", help="file to write a page of pictures to")
    return (parser.parse_args(argv),)


def run(options: Any) -> int:
    from ..bundled import checkpoint_source
    from ..data.measured_pairs import MeasuredPairs
    from ..data.source_rows import usual_split
    from ..data.sources import load_pairs
    from ..devices import placed
    from ..inspection.measure import inspect_pretraining
    from ..model.modeling_cbvila_pretraining import CBViLAForPreTraining
    from ..model.processing_cbvila import CBViLAProcessor
    from ..output_files import require_folder, write_json
    from ..retrieval.retrieval_order import keep_better_order

    require_folder("output", options.output)
    source = checkpoint_source(options.model)
    model, processor = placed(CBViLAForPreTraining.from_pretrained(source)), CBViLAProcessor.from_pretrained(source)
    split = options.split or usual_split([options.data])
    columns, skip = (options.image_column, options.caption_column), options.skip_bad_rows
    rows = MeasuredPairs(load_pairs(options.data, split, *columns, skip_bad_rows=skip), skip)
    if rows.skipped:
        print(rows.summary_of_skipped(), file=sys.stderr)
    measured = inspect_pretraining(model, processor, rows, rerank_k=options.rerank_k)
    figures = {"data": Path(options.data).name, "split": split, **measured}
    print_metrics(figures)
    if kept := keep_better_order(source, measured, options.rerank_k):
        print(kept)
    if options.output:
        write_json(options.output, figures)
    if options.page:
        from ..pages.codebook_page import write_codebook_page
        from ..pages.document import counted

        # names and not paths: a page is shown to others
        title = f"Inside the codebook of {Path(options.model).absolute().name}"
        note = f"On {counted(len(rows), 'image')} of {Path(options.data).absolute().name}, {split}."
        print(f"Page: {write_codebook_page(options.page, model, processor, rows, measured, title, note)}")
    return 0
