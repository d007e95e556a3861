"""`cbvila inspect`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..metric_lines import print_metrics
from .parsing import Parser

if TYPE_CHECKING:
    from ..data.measured_pairs import MeasuredPairs

EXAMPLE = """\
example:
  cbvila inspect cbvila-tiny --data easy-vqa --output metrics.json --page codebook.html
  cbvila inspect runs/mine --data scenes --split confusers --rerank_k 0
  cbvila inspect runs/mine --data scenes --label_column objects --fewer_codes 64 16

The metrics say how many codes are used, whether they go with words and labels (code_…, each beside a _floor), what
masked image modelling and the pixel head reach beside their baselines, and how often the right caption or image is
found, by similarity and when matching orders the best --rerank_k candidates. The page shows images drawn from visual
words (the paper's Fig. 2), patches that share a code and the words that go with it (Fig. 3), the codes of words, and
maps of codes; for a model with prototypes (CODIS), the images and captions that they gather. It is one file with
everything in it.
"""

_CANDIDATES = 64  # per query, by default


def parse(argv: list[str]) -> tuple[Any, ...]:
    """Returns the options."""
    from ..data import option_texts

    parser = Parser(
        prog="cbvila inspect",
        usage="cbvila inspect MODEL --data DATA [DATA ...] [OPTION ...]",
        description="Measure a pretrained model on images with captions.",
        epilog=EXAMPLE,
    )
    model = parser.add_argument("model", help="folder, Hub id, or the name of a bundled checkpoint")
    model.required = False  # asked for below
    parser.add_argument(
        "--data", nargs="+", required=True, metavar="DATA", help=f"{option_texts.SOURCES}; all rows of all"
    )
    parser.add_argument("--split", help=option_texts.MEASURED_SPLIT)
    parser.add_argument("--image_column", default="image", help=option_texts.IMAGE_COLUMN)
    parser.add_argument("--caption_column", help=option_texts.CAPTION_COLUMN)
    parser.add_argument("--label_column", help=f'{option_texts.LABEL_COLUMN} "" for none.')
    parser.add_argument(
        "--fewer_codes",
        nargs="+",
        type=int,
        default=[],
        metavar="K",
        help="also reconstruct with so many codes, made of the model's by differentiable k-means",
    )
    parser.add_argument(
        "--rerank_k", type=int, help="candidates per query that matching orders; 0: none (default: 64)"
    )
    parser.add_argument("--skip_bad_rows", action="store_true", help=option_texts.SKIP_BAD_ROWS)
    parser.add_argument("--output", metavar="FILE.json", help="file to write the metrics to")
    parser.add_argument("--page", metavar="FILE.html", help="file to write a page of images to")
    options = parser.parse_args(argv)
    if options.model is None and len(options.data) > 1:
        options.model = options.data.pop()  # `--data DATA MODEL`, as was possible before there were several
    if options.model is None:
        parser.error("the following arguments are required: model")
    return (options,)


def run(options: Any) -> int:
    """Measures the model, prints what was found and writes it where the options say."""
    from ..bundled import checkpoint_source
    from ..inspection.measure import inspect_pretraining
    from ..inspection.prototypes import gather
    from ..output_files import require_folder, write_json
    from ..retrieval.retrieval_order import keep_better_order
    from ..weights_digest import weights_digest
    from .checkpoints import load_pretrained

    require_folder("output", options.output)
    source = checkpoint_source(options.model)
    model, processor = load_pretrained("inspect", options.model)
    if options.fewer_codes:
        from ..inspection.rate_distortion import check_fewer_codes

        check_fewer_codes(model, options.fewer_codes)
    rerank_k = _check_use(options, model)
    split, rows = _load(options)
    if rows.skipped:
        print(rows.summary_of_skipped(), file=sys.stderr)
    measured = inspect_pretraining(model, processor, rows, rerank_k=rerank_k)
    if model.cbvila.has_quantizer:
        measured |= _codebook_metrics(model, processor, rows, source, options.fewer_codes)
    if gathered := gather(model, processor, rows):
        measured |= gathered.metrics()
    metrics = {"data": " ".join(Path(name).name for name in options.data), "split": split, **measured}
    print_metrics(metrics)
    if kept := keep_better_order(source, measured, rerank_k):
        print(kept)
    if options.output:
        write_json(options.output, metrics | {"weights": weights_digest(source)})
    if options.page:
        from ..pages.codebook_page import write_codebook_page
        from ..pages.document import counted

        # names and not paths: a page is shown to others
        title = f"Inside the codebook of {Path(options.model).absolute().name}"
        data = ", ".join(Path(name).absolute().name for name in options.data)
        note = f"On {counted(len(rows), 'image')} of {data}, {split}."
        path = write_codebook_page(options.page, model, processor, rows, measured, title, note, gathered=gathered)
        print(f"Page: {path}")
    return 0


def _check_use(options: Any, model: Any) -> int:
    """Returns how many candidates matching orders; raises a ValueError for options that the model leaves unused."""
    from ..retrieval.measure import check_matches

    if options.label_column and not model.cbvila.has_quantizer:
        raise ValueError(
            f"label_column={options.label_column}: labels are compared with visual words, and this model has no "
            "codebook; leave it out."
        )
    if options.rerank_k is None:
        return _CANDIDATES
    check_matches(options.rerank_k, model.config)
    return options.rerank_k


def _codebook_metrics(model: Any, processor: Any, rows: Any, source: str, fewer_codes: list[int]) -> dict[str, Any]:
    """Returns what codes tell about words, and what images lose with them."""
    from ..inspection.codebook_rates import measure_rate
    from ..inspection.codebook_report import codebook_report
    from ..inspection.image_tokenizers import CBViLATokenizer
    from ..inspection.rate_distortion import rate_distortion
    from ..inspection.recorded_stability import recorded_stability
    from ..model.objective_pixel_cbvila import CBViLAPixel

    found = codebook_report(CBViLATokenizer(model, processor), rows)
    if CBViLAPixel.name in model.objectives:
        rate = measure_rate(model, processor, rows)
        found |= {name: value for name, value in rate.items() if name.startswith(("psnr", "ssim"))}
    if fewer_codes:
        found |= rate_distortion(model, processor, rows, fewer_codes)
    return found | recorded_stability(source)


def _load(options: Any) -> tuple[str, MeasuredPairs]:
    """Returns the split that is measured, as a record names it, and its rows of all sources."""
    from ..data.column_names import LABEL_COLUMNS
    from ..data.measured_pairs import MeasuredPairs
    from ..data.mixing import join
    from ..data.source_rows import split_as_read, usual_split
    from ..data.sources import load_pairs

    split, skip = options.split or usual_split(options.data), options.skip_bad_rows
    labels = LABEL_COLUMNS if options.label_column is None else (options.label_column,)
    columns = (options.image_column, options.caption_column, labels)
    pairs = join([load_pairs(name, split, *columns, skip_bad_rows=skip) for name in options.data])
    if options.label_column and not any(pairs["keywords"]):
        raise ValueError(
            f"label_column={options.label_column}: no row of {' '.join(options.data)} has a label in such a column."
        )
    return split_as_read(options.data, split), MeasuredPairs(pairs, skip)
