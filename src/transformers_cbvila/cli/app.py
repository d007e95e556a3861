"""The command `cbvila app`."""

from __future__ import annotations

import argparse

from ..extras import require_installed
from ..garbage_collection import garbage_collection_paused
from .parsing import Parser

EXAMPLE = """\
example:
  cbvila app
  cbvila app --images ~/Pictures
  cbvila app runs/pretrained runs/vqa --port 8000 --no_browser

Search, ask, draw and look inside, in the browser. A pretrained model searches, draws and shows its visual words, one
for retrieval searches, and one for question answering answers; tabs for which there is no model say so.
"""
INTERRUPTED = "Stopped."


def parse(argv: list[str]) -> tuple[argparse.Namespace]:
    """Parses the command's arguments."""
    parser = Parser(prog="cbvila app", description="Try models in the browser.", epilog=EXAMPLE)
    add_contents(parser)
    parser.add_argument("--port", type=int, help="port of the page (default: the first free one from 7860)")
    parser.add_argument("--no_browser", action="store_true", help="do not open the page in a browser")
    return (parser.parse_args(argv),)


def add_contents(parser: Parser) -> None:
    """Adds the arguments that say what the app shows: here, or on a Space."""
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="folders, Hub ids, or names of bundled checkpoints; each tab takes the first that can do what it shows "
        "(default: those that come with the package)",
    )
    parser.add_argument("--images", metavar="FOLDER", help="pictures to search in (default: generated scenes)")


def run(options: argparse.Namespace) -> int:
    """Serves the app until it is interrupted."""
    require_installed("gradio")
    with garbage_collection_paused():
        from ..app.models import DEFAULT_MODELS
        from ..app.serving import serve_app

    serve_app(options.models or DEFAULT_MODELS, options.images, options.port, not options.no_browser)
    return 0
