"""The command `cbvila draw`."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

from .parsing import Parser

if TYPE_CHECKING:
    from PIL import Image

EXAMPLE = """\
example:
  cbvila draw cbvila-tiny "a blue circle" "a small red square" --output drawn.png
  cbvila draw cbvila-tiny "a blue circle" --candidates 16 --samples 1 --output best.png
  cbvila draw cbvila-tiny "a blue circle" --steps 12 --show_steps --output steps.png
  cbvila draw cbvila-tiny "a red square" --image drawn.png --redraw 8-15 --output redrawn.png
  cbvila draw cbvila-tiny "a blue circle" --image drawn.png --redraw 50% --output variations.png
  cbvila draw cbvila-tiny "a blue circle" --image drawn.png --words 5=17,6=17 --output exchanged.png

The sheet has a line of pictures for each text. Visual words are drawn in a few steps, the surest first, and the pixel
head paints them. The same seed draws the same pictures.

With --image a line begins with the picture as the model sees it. Its patches are numbered row by row from 0; `cbvila
explain` shows them with their visual words.
"""
# Options of drawing visual words, in a few steps and at random.
_OF_DRAWING = ("samples", "steps", "seed", "guidance", "temperature", "top_k", "schedule", "show_steps")


def parse(argv: list[str]) -> tuple[argparse.Namespace]:
    """Parses the command's arguments."""
    parser = Parser(prog="cbvila draw", description="Draw pictures from texts.", epilog=EXAMPLE)
    parser.add_argument("model", help="folder, Hub id, or the name of a bundled checkpoint")
    parser.add_argument("texts", nargs="+", metavar="TEXT", help="what to draw")
    parser.add_argument("--output", required=True, metavar="FILE.png", help="file for the sheet of pictures")
    parser.add_argument("--samples", type=int, default=4, metavar="N", help="pictures of each text (default: 4)")
    parser.add_argument(
        "--candidates",
        type=int,
        metavar="N",
        help="draw so many pictures of each text, and keep those --samples that match it best, best first",
    )
    parser.add_argument(
        "--reranker",
        metavar="MODEL",
        help="folder, Hub id or name of the model that matches candidates with texts (default: the one that draws)",
    )
    parser.add_argument("--steps", type=int, default=8, metavar="T", help="steps of decoding (default: 8)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the samples (default: 0)")
    parser.add_argument(
        "--guidance",
        type=float,
        default=1.0,
        metavar="G",
        help="above 1: further from pictures without a text, for models trained with --text_drop_prob (default: 1)",
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        help="of the samples; 0 takes the likeliest visual words (default: 1)",
    )
    parser.add_argument(
        "--top_k", type=int, metavar="K", help="sample from the K likeliest visual words (default: all)"
    )
    parser.add_argument(
        "--schedule",
        default="cosine",
        metavar="NAME",
        help="how many visual words are drawn in which step: cosine, linear, square or arccos",
    )
    parser.add_argument(
        "--show_steps", action="store_true", help="show the first picture of each text after every step"
    )
    parser.add_argument("--image", metavar="FILE", help="a picture to change, with --redraw or --words")
    change = parser.add_mutually_exclusive_group()
    change.add_argument(
        "--redraw",
        type=_part,
        metavar="PATCHES",
        help="patches to draw anew, such as 0-7,12; or a share of them, such as 50%%, others in each sample",
    )
    change.add_argument(
        "--words",
        type=_words,
        metavar="PATCH=CODE",
        help="visual words to exchange, such as 5=17,6=17; the picture is painted anew with them",
    )
    asked = parser.parse_args(argv)
    _refuse_without_effect(parser, asked)
    return (asked,)


def _refuse_without_effect(parser: Parser, asked: argparse.Namespace) -> None:
    """Ends with an error for options that do not go together, or that others leave without effect."""
    if (asked.image is None) != (asked.redraw is None and asked.words is None):
        parser.error("give --image with --redraw or --words, or none of them")
    if asked.words is not None:
        parser.refuse(_OF_DRAWING, "--words names the visual words, and none is drawn")
    if asked.show_steps:
        parser.refuse(["samples", "candidates"], "--show_steps shows one picture of each text")
    if asked.image is not None:
        parser.refuse(["candidates"], "--image changes a picture, and candidates are drawn from texts alone")
    if asked.candidates is None:
        parser.refuse(["reranker"], "it chooses among --candidates")
    elif asked.candidates < asked.samples:
        parser.error(f"--candidates {asked.candidates}: fewer than --samples {asked.samples}, which are kept of them")
    if asked.temperature == 0 and asked.steps == 1 and not isinstance(asked.redraw, float):
        parser.refuse(["seed", "candidates"], "one step at --temperature 0 takes the likeliest visual words")


def _part(text: str) -> list[int] | float:
    """Reads patches, or a share of them."""
    if share := re.fullmatch(r"(\d+(?:\.\d+)?)%", text):
        return float(share[1]) / 100
    patches = list[int]()
    for piece in text.split(","):
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", piece)
        if not found:
            raise argparse.ArgumentTypeError(f"{text!r} must be patches such as 0-7,12, or a share such as 50%")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            raise argparse.ArgumentTypeError(f"{piece} of {text!r} ends before it begins; give {last}-{first}")
        patches += range(first, last + 1)
    return patches


def _words(text: str) -> dict[int, int]:
    """Reads visual words by their patches."""
    if not re.fullmatch(r"\d+=\d+(,\d+=\d+)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} must be patches with codes, such as 5=17,6=17")
    pairs = (piece.split("=") for piece in text.split(","))
    return {int(patch): int(code) for patch, code in pairs}


def run(asked: argparse.Namespace) -> int:
    """Draws the texts and writes the sheet."""
    from ..drawing.from_captions import draw_captions, draw_steps
    from ..drawing.sheet import require_image_file, sheet
    from ..output_files import require_folder
    from .argument_order import is_model, refuse_other_order
    from .checkpoints import load_pretrained
    from .unknown_words import note_unknown_words

    require_folder("output", asked.output)
    require_image_file("output", asked.output)
    refuse_other_order("cbvila draw MODEL TEXT", asked.model, asked.texts[-1], is_model)
    model, processor = load_pretrained("draw", asked.model)
    note_unknown_words(processor.tokenizer, asked.model, *asked.texts)
    how = {
        "num_steps": asked.steps,
        "guidance_scale": asked.guidance,
        "temperature": asked.temperature,
        "top_k": asked.top_k,
        "schedule": asked.schedule,
    }
    if asked.image is not None:
        lines = _changed(model, processor, asked, how)
    elif asked.show_steps:
        lines = [of_text[0] for of_text in draw_steps(model, processor, asked.texts, seed=asked.seed, **how)]
    else:
        number = asked.samples if asked.candidates is None else asked.candidates
        reranker = _reranker(model, processor, asked)
        lines = draw_captions(model, processor, asked.texts, number, asked.seed, **how)
        lines = lines if reranker is None else _best(lines, asked, *reranker)
    sheet(lines, asked.texts).save(asked.output)
    print(f"Pictures: {asked.output}")
    return 0


def _reranker(model: Any, processor: Any, asked: argparse.Namespace) -> tuple[Any, Any] | None:
    """Returns the model that matches candidates with texts, and its processor; None without candidates."""
    from ..drawing.reranking import check_reranks
    from ..retrieval.retriever import CBViLARetriever

    if asked.candidates is None:
        return None
    if asked.reranker is not None:
        retriever = CBViLARetriever.from_pretrained(asked.reranker)
        model, processor = retriever.model, retriever.processor
    check_reranks(model)
    return model, processor


def _best(lines: list[list[Image.Image]], asked: argparse.Namespace, model: Any, processor: Any) -> list[Any]:
    """Returns those of the candidates of each text that match it best, best first."""
    from ..drawing.reranking import best_matching

    best = best_matching(model, processor, asked.texts, lines, asked.samples, progress=len(lines) > 1)
    return [[line[number] for number in numbers] for line, numbers in zip(lines, best, strict=True)]


def _changed(model: Any, processor: Any, asked: argparse.Namespace, how: dict[str, Any]) -> list[list[Image.Image]]:
    """Returns a line for each text: the picture as the model sees it, and what it was changed into."""
    from ..drawing.changes import exchange_words
    from ..drawing.steps import draw_in_steps
    from ..model.image_loading_cbvila import load_image
    from ..retrieval.encoding import pixel_values_of

    image = load_image(asked.image)
    (seen,) = processor.postprocess(pixel_values_of(model, processor, [image]))
    if asked.words is not None:
        return [[seen, exchange_words(model, processor, image, asked.words, text)] for text in asked.texts]
    lines = []
    for text in asked.texts:
        drawn = [
            draw_in_steps(model, processor, text, image, asked.redraw, seed=asked.seed, sample=sample, **how)
            for sample in range(1 if asked.show_steps else asked.samples)
        ]
        after = drawn[0] if asked.show_steps else [steps[-1] for steps in drawn]
        lines.append([seen, *(step.picture for step in after)])
    return lines
