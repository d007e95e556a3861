"""The command line `cbvila`.

Neither torch nor transformers is imported for the help, the version or an unknown command.
"""

import argparse
import sys
from importlib import import_module

from ..garbage_collection import garbage_collection_paused
from .errors import TRACEBACK, in_one_line, option_names, refuse_nul
from .own_files import import_own_files
from .parsing import Parser

# Each is a module of this package with `parse(argv)`, `run(*parsed)`, and optionally INTERRUPTED, what Ctrl-C prints.
COMMANDS = {
    "pretrain": "pretrain on folders, Parquet files or Hub data sets of images and captions",
    "finetune": "fine-tune for vqa, retrieval, entailment, reasoning, captioning or generation",
    "evaluate": "measure a model on a task, with baselines and intervals",
    "inspect": "measure a pretrained model: codebook, MIM and its baselines, retrieval; show its visual words",
    "search": "find the pictures of a folder that fit a text, a picture, or both",
    "ask": "ask a question about a picture",
    "draw": "draw pictures from texts",
    "explain": "show where the words of a text look in a picture, and what speaks for an answer",
    "export": "write a model as ONNX graphs, which run without torch, and measure what that changes",
    "resize-codebook": "change the number of codes of a trained model, and measure what it costs",
    "tokenize": "write the visual words of a data set to Parquet files, and draw images from them",
    "data": "write generated scenes, with their exact truth, to Parquet files",
    "app": "search, ask, draw and look inside, in the browser",
    "demo": "fine-tune the bundled checkpoint on easy-VQA, evaluate it and write a report",
    "publish": "put a model on the Hub, loadable with and without this package, or the app on a Space",
}


def main(argv: list[str] | None = None) -> int:
    """Runs `cbvila` or `python -m transformers_cbvila`; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    parser = _parser()
    if not argv:
        parser.print_help()
        return 0
    name = parser.parse_args(argv[:1]).command
    with in_one_line(f"cbvila {name}") as outcome:
        refuse_nul(argv)
        command = import_module(f".{name.replace('-', '_')}", __name__)
        outcome.when_interrupted = getattr(command, "INTERRUPTED", outcome.when_interrupted)
        parsed = command.parse(import_own_files(argv[1:]))
        outcome.options = option_names(parsed)
        with garbage_collection_paused():
            from ..registration import register

            register()  # see `transformers_cbvila/__init__.py`
            _turn_off_loading_bars()
        outcome.status = command.run(*parsed)
    return outcome.status


def _turn_off_loading_bars() -> None:
    """Turns off transformers' bars of weights, which are loaded in a moment, and leaves those of downloads."""
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils.logging import disable_progress_bar

    downloads = not are_progress_bars_disabled()
    disable_progress_bar()  # also those of downloads
    if downloads:
        enable_progress_bars()


def _parser() -> Parser:
    from .. import __version__

    lines = (f"  {name:<15} {text}" for name, text in COMMANDS.items())
    parser = Parser(
        prog="cbvila",
        usage="cbvila COMMAND [OPTION VALUE ...]",
        description="CB-ViLA: vision-language models with a learned visual codebook.",
        epilog="commands:\n"
        + "\n".join(lines)
        + "\n\ncbvila COMMAND --help describes each. All take --import FILE.py, with a class of your own. "
        f"An error is one line, and the exit status 1; set {TRACEBACK}=1 to see its traceback.",
    )
    parser.add_argument("--version", action="version", version=f"cbvila {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    return parser
