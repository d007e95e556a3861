"""The command `cbvila explain`."""

from __future__ import annotations

import argparse
from typing import Any

from .parsing import Parser

EXAMPLE = """\
example:
  cbvila explain cbvila-tiny --image fruit.png --text "a red apple" --output apple.html
  cbvila explain cbvila-tiny-easyvqa --image shape.png --text "what color is it?" --answer red --output red.html
  cbvila explain runs/nlvr --image left.png right.png --text "both are blue" --output both.html

The page is one file: the picture with a heat map for each word, the score that is explained (how well the text
matches, the answer, or the class), and, for a pretrained model, the visual words that speak for each word,
and the words that go with each visual word, with the numbers of its patches (cbvila draw --image FILE --words).
"""


def parse(argv: list[str]) -> tuple[argparse.Namespace]:
    """Parses the command's arguments."""
    parser = Parser(prog="cbvila explain", description="Show where the words of a text look.", epilog=EXAMPLE)
    parser.add_argument("model", help="folder, Hub id, or the name of a bundled checkpoint")
    parser.add_argument(
        "--image", nargs="+", required=True, metavar="FILE", help="the picture; for visual reasoning, all of them"
    )
    parser.add_argument("--text", required=True, help="caption, question, hypothesis or statement")
    parser.add_argument("--answer", help="answer or class to explain (default: the model's own)")
    parser.add_argument(
        "--layer",
        type=int,
        metavar="N",
        help="fusion layer, counted from 0 (default: all added up); of rollout, the last one that is followed",
    )
    parser.add_argument(
        "--method",
        choices=("gradcam", "rollout"),
        default="gradcam",
        help="gradcam: what speaks for the score; rollout: what was attended to (default: gradcam)",
    )
    parser.add_argument("--output", required=True, metavar="FILE.html", help="file for the page")
    return (parser.parse_args(argv),)


def run(options: argparse.Namespace) -> int:
    """Explains the score and writes the page."""
    from ..bundled import checkpoint_source
    from ..devices import placed
    from ..explaining.explain import explain
    from ..explaining.visual_words import codes_of_image
    from ..model.image_loading_cbvila import load_image
    from ..model.processing_cbvila import CBViLAProcessor
    from ..output_files import require_folder
    from ..pages.explanation_page import write_explanation_page
    from .unknown_words import note_unknown_words

    require_folder("output", options.output)
    images = [load_image(file) for file in options.image]
    source = checkpoint_source(options.model)
    model, processor = placed(head_of(source).from_pretrained(source)), CBViLAProcessor.from_pretrained(source)
    note_unknown_words(processor.tokenizer, options.model, options.text)
    image = images[0] if len(images) == 1 else images
    explanation = explain(
        model, processor, image, options.text, options.answer, method=options.method, layer=options.layer
    )
    codes = codes_of_image(model, processor, image) if model.cbvila.has_quantizer and len(images) == 1 else None
    if explanation.answer is not None:
        print(f"Answer: {explanation.answer}")
    probability = f"probability {explanation.probability:.4f} by softmax, not calibrated"
    print(f"Score: {explanation.score:z.4f} ({explanation.score_name}; {probability})")
    print(f"Page: {write_explanation_page(options.output, explanation, codes=codes)}")
    return 0


def head_of(source: str) -> Any:
    """Returns the class that a checkpoint was saved from.

    Raises:
        ValueError: If it cannot be explained.
    """
    import transformers_cbvila

    from ..bundled import class_of_checkpoint
    from ..explaining.heads import require_explained

    name = class_of_checkpoint(source) or "model without a head"
    head = getattr(transformers_cbvila, name, None)
    require_explained(head, name)
    return head
