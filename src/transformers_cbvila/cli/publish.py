"""The command `cbvila publish`."""

import argparse
from typing import Any

from .app import add_contents
from .parsing import Parser

EXAMPLE = """\
example:
  cbvila publish runs/mine my-org/cbvila-birds --facts facts.yaml --private
  cbvila publish cbvila-tiny-easyvqa my-name/cbvila-tiny-easyvqa --output_dir staged

The folder's model is loaded in a process without this package and compared with the original, uploaded in one commit
with its code and a model card, and loaded once more from the Hub. --output_dir does all but the upload, without a
network. What the run did not record is in a file like this one:

  license: apache-2.0
  data:
    - {name: my_folder, what: 12 000 photographs of birds with captions, license: CC BY 4.0}
  limits: It knows birds of Europe, photographed by day.
  results:                  # [] where nothing was measured; other entries: recipe, codebook, language, base_model
    - {dataset: my_folder, metric: image_retrieval_r1, value: 0.31, floors: {chance: 0.001}}
"""
SPACE_EXAMPLE = """\
example:
  cbvila publish --space my-org/cbvila
  cbvila publish --space my-org/birds my-org/cbvila-birds runs/birds-vqa --images pictures --private
  cbvila publish --space my-org/cbvila --output_dir staged

The Space is what cbvila app shows, for everybody. It holds this package, the models that are no Hub ids, and the
pictures. The app is started in a fresh process from what is to be uploaded, and its page fetched; then all is uploaded
in one commit, and the Hub builds it. --output_dir does all but the upload. The licence and the limits of a model in a
folder are in its facts.yaml (cbvila publish --help shows one).
"""
STATIC_EXAMPLE = """\
example:
  cbvila publish --space my-org/scenes --static --output_dir page
  cbvila publish --space my-org/birds runs/birds --static --images pictures --examples "a red bird" "a bird in a tree"

The page runs the model in the browser, as ONNX graphs in ONNX Runtime Web, and needs no server: it searches pictures
by words, and draws if the model does. --output_dir writes it into a folder, without a token; python -m http.server
there serves it. The licence and the limits of a model in a folder are in its facts.yaml (cbvila publish --help shows
one).
"""
INTERRUPTED = "Interrupted. Nothing was uploaded."
_OF_UPLOAD = ("private", "commit_message")


def parse(argv: list[str]) -> tuple[argparse.Namespace]:
    """Parses the command's arguments: those of a Space or of a static page, if they name one, or those of a model."""
    if "--static" in argv:
        parser = _static_parser()
    else:
        of_space = any(word.partition("=")[0] == "--space" for word in argv)
        parser = _space_parser() if of_space else _model_parser()
    options = parser.parse_args(argv)
    if options.output_dir:
        parser.refuse(_OF_UPLOAD, "with --output_dir nothing is uploaded")
    return (options,)


def run(options: argparse.Namespace) -> int:
    """Publishes or stages a model, a Space or a static page; returns the exit status."""
    if options.space is None:
        _run_model(options)
    elif options.static:
        _run_static(options)
    else:
        _run_space(options)
    return 0


def _model_parser() -> Parser:
    parser = Parser(
        prog="cbvila publish",
        description="Put a model on the Hugging Face Hub.",
        epilog=EXAMPLE,
    )
    parser.add_argument("source", metavar="FOLDER_OR_RUN", help="model folder, run, or name of a bundled checkpoint")
    parser.add_argument("repository", metavar="OWNER/NAME", help="repository on the Hub; created if it does not exist")
    parser.add_argument(
        "--space",
        metavar="OWNER/NAME",
        help="put the app on a Space instead; cbvila publish --space OWNER/NAME --help says more",
    )
    parser.add_argument("--facts", metavar="FILE.yaml", help="facts for the model card that the run did not record")
    parser.add_argument("--card", metavar="README.md", help="a model card of your own instead")
    _add_common(parser, "repository")
    return parser


def _space_parser() -> Parser:
    parser = Parser(
        prog="cbvila publish --space",
        usage="cbvila publish --space OWNER/NAME [MODEL ...] [OPTION VALUE ...]",
        description="Put the app on a Hugging Face Space.",
        epilog=SPACE_EXAMPLE,
    )
    _add_space(parser)
    add_contents(parser)
    parser.add_argument(
        "--static",
        action="store_true",
        help="a page that runs a model in the browser instead; cbvila publish --static --help says more",
    )
    _add_common(parser, "Space")
    return parser


def _static_parser() -> Parser:
    parser = Parser(
        prog="cbvila publish --static",
        usage="cbvila publish --space OWNER/NAME [MODEL] --static [OPTION VALUE ...]",
        description="Make a page that searches and draws in the browser, in a folder or as a Hugging Face Space.",
        epilog=STATIC_EXAMPLE,
    )
    _add_space(parser)
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="folder, Hub id, or name of a bundled checkpoint: pretrained, or for retrieval (default: cbvila-scenes)",
    )
    parser.add_argument("--static", action="store_true", required=True, help="make such a page")
    parser.add_argument("--images", metavar="FOLDER", help="pictures to search in (default: generated scenes)")
    parser.add_argument(
        "--examples", nargs="+", default=[], metavar="TEXT", help="texts to press (default: some about the scenes)"
    )
    parser.add_argument(
        "--int8", action="store_true", help="run int8 versions of the graphs: a third of the size, less exact"
    )
    parser.add_argument(
        "--onnxruntime_web",
        metavar="FOLDER",
        help="unpacked npm package onnxruntime-web (default: fetched once from the npm registry, 33 MB)",
    )
    _add_common(parser, "Space")
    return parser


def _add_space(parser: Parser) -> None:
    parser.add_argument("--space", metavar="OWNER/NAME", required=True, help="the Space; created if it does not exist")


def _add_common(parser: Parser, what: str) -> None:
    parser.add_argument("--private", action="store_true", help=f"make a new {what} private")
    parser.add_argument("--commit_message", help="message of the commit on the Hub")
    parser.add_argument("--output_dir", metavar="NEW_FOLDER", help=f"write the {what} there and upload nothing")


def _run_model(options: argparse.Namespace) -> None:
    from ..hub.publishing import publish, stage_repository
    from .argument_order import is_model_folder, refuse_other_order

    usage = "cbvila publish FOLDER_OR_RUN OWNER/NAME"
    refuse_other_order(usage, options.source, options.repository, is_model_folder)
    card: dict[str, Any] = {"facts": options.facts, "card": options.card}
    if options.output_dir:
        print(f"Staged: {stage_repository(options.source, options.repository, options.output_dir, **card)}")
        print(
            "Its README.md is the card; its classes load from the folder as from the Hub, with trust_remote_code=True."
        )
        return
    commit: dict[str, Any] = {"private": options.private, "commit_message": options.commit_message}
    published = publish(options.source, options.repository, **card, **commit)
    print(f"Published: {published.url} at commit {published.commit}")


def _run_space(options: argparse.Namespace) -> None:
    from ..extras import require

    require("gradio")  # before models are looked for
    from ..app.models import DEFAULT_MODELS
    from ..space.publishing import publish_space, stage_space

    models = options.models or DEFAULT_MODELS
    if options.output_dir:
        print(f"Staged: {stage_space(options.space, options.output_dir, models, images=options.images)}")
        return
    commit: dict[str, Any] = {"private": options.private, "commit_message": options.commit_message}
    published = publish_space(options.space, models, images=options.images, **commit)
    print(f"Published: {published.url} at commit {published.commit}; the Hub builds it now, which takes some minutes.")


def _run_static(options: argparse.Namespace) -> None:
    from ..static_page.publishing import DEFAULT_MODEL, publish_static_page, stage_static_page

    model, contents = options.model or DEFAULT_MODEL, ("images", "examples", "int8", "onnxruntime_web")
    page: dict[str, Any] = {name: getattr(options, name) for name in contents}
    if options.output_dir:
        print(f"Staged: {stage_static_page(options.space, options.output_dir, model, **page)}")
        return
    commit: dict[str, Any] = {"private": options.private, "commit_message": options.commit_message}
    published = publish_static_page(options.space, model, **page, **commit)
    print(f"Published: {published.url} at commit {published.commit}")
