"""The command `cbvila ask`."""

from __future__ import annotations

import argparse

from .parsing import Parser

EXAMPLE = """\
example:
  cbvila ask picture.png "what color is the circle?"
  cbvila ask picture.png "is there a circle?" --page why.html
  cbvila ask photo.jpg "how many dogs are there?" --model runs/vqa

The answer is one line, with the probability of its tokens: how sure the model is, which is not calibrated, and no
share of right answers. The default model, cbvila-scenes-vqa, knows questions about a few coloured shapes: whether
there is one, how many, of which color, shape or size, where one is, seen from another (docs/scenes.md has the forms).
To all others it answers nonsense; `cbvila finetune vqa` trains models for yours. The page shows where the words look.
"""


def parse(argv: list[str]) -> tuple[argparse.Namespace]:
    """Parses the command's arguments."""
    parser = Parser(prog="cbvila ask", description="Ask a question about a picture.", epilog=EXAMPLE)
    parser.add_argument("image", metavar="PICTURE", help="the picture: a file or an address")
    parser.add_argument("question", metavar="QUESTION", help="the question, in words")
    parser.add_argument(
        "--model",
        default="cbvila-scenes-vqa",
        help="folder, Hub id, or the name of a bundled checkpoint, for question answering",
    )
    parser.add_argument("--page", metavar="FILE.html", help="file for a page that shows where the words look")
    return (parser.parse_args(argv),)


def run(asked: argparse.Namespace) -> int:
    """Answers the question and writes the page."""
    from ..devices import placed
    from ..explaining.explain import explain
    from ..model.image_loading_cbvila import load_image
    from ..model.modeling_cbvila_question_answering import CBViLAForQuestionAnswering
    from ..model.pipeline_cbvila import CBViLAVisualQuestionAnsweringPipeline
    from ..model.processing_cbvila import CBViLAProcessor
    from ..output_files import require_folder
    from ..pages.explanation_page import write_explanation_page
    from .argument_order import is_picture, refuse_other_order
    from .checkpoints import usable_source
    from .unknown_words import note_unknown_words

    require_folder("page", asked.page)
    refuse_other_order("cbvila ask PICTURE QUESTION", asked.image, asked.question, is_picture)
    image, source = load_image(asked.image), usable_source("ask", asked.model)
    model = placed(CBViLAForQuestionAnswering.from_pretrained(source))
    processor = CBViLAProcessor.from_pretrained(source)
    note_unknown_words(processor.tokenizer, asked.model, asked.question)
    (best,) = CBViLAVisualQuestionAnsweringPipeline(model, processor=processor, device=model.device)(
        image, asked.question, top_k=1
    )
    print(f"{best['answer']}  {100 * best['score']:.1f} %")
    if asked.page:
        explanation = explain(model, processor, image, asked.question, best["answer"])
        print(f"Page: {write_explanation_page(asked.page, explanation)}")
    return 0
