"""The command `cbvila draw`."""

from __future__ import annotations

import argparse

from .parsing import Parser

EXAMPLE = """\
example:
  cbvila draw cbvila-tiny "a red circle" "a small blue square" --output drawn.png
  cbvila draw cbvila-tiny "a red circle" --steps 12 --show_steps --output steps.png

The sheet has a line of pictures for each text. Visual words are drawn in a few steps, the surest first, and the pixel
head paints them. The same seed draws the same pictures.
"""


def parse(argv: list[str]) -> tuple[argparse.Namespace]:
    """Parses the command's arguments."""
    parser = Parser(prog="cbvila draw", description="Draw pictures from texts.", epilog=EXAMPLE)
    parser.add_argument("model", help="folder, Hub id, or the name of a bundled checkpoint")
    parser.add_argument("texts", nargs="+", metavar="TEXT", help="what to draw")
    parser.add_argument("--output", required=True, metavar="FILE.png", help="file for the sheet of pictures")
    parser.add_argument("--samples", type=int, default=4, metavar="N", help="pictures of each text (default: 4)")
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
        "--show_steps", action="store_true", help="show the first picture of each text after every step"
    )
    return (parser.parse_args(argv),)


def run(asked: argparse.Namespace) -> int:
    """Draws the texts and writes the sheet."""
    from ..drawing.from_captions import draw_captions, draw_steps
    from ..drawing.sheet import require_image_file, sheet
    from ..output_files import require_folder
    from .argument_order import is_model, refuse_other_order
    from .checkpoints import load_pretrained

    require_folder("output", asked.output)
    require_image_file("output", asked.output)
    refuse_other_order("cbvila draw MODEL TEXT", asked.model, asked.texts[-1], is_model)
    model, processor = load_pretrained("draw", asked.model)
    how = {
        "num_steps": asked.steps,
        "guidance_scale": asked.guidance,
        "temperature": asked.temperature,
        "top_k": asked.top_k,
    }
    if asked.show_steps:
        lines = [of_text[0] for of_text in draw_steps(model, processor, asked.texts, seed=asked.seed, **how)]
    else:
        lines = draw_captions(model, processor, asked.texts, asked.samples, asked.seed, **how)
    sheet(lines, asked.texts).save(asked.output)
    print(f"Pictures: {asked.output}")
    return 0
