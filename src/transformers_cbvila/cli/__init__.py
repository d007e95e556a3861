"""The command line `cbvila`: finds the command, lets it parse, then run.

Neither torch nor transformers are imported for the help, the version or a word that is no command.
"""

import argparse
import sys
from importlib import import_module

from .errors import TRACEBACK, in_one_line, refuse_nul
from .parsing import Parser

# Each is a file of this folder, with `parse(argv)` and `run(*parsed)`, and INTERRUPTED if Ctrl-C leaves something.
COMMANDS = {
    "pretrain": "pretrain on folders, Parquet files or Hub data sets of images and captions",
    "finetune": "fine-tune for vqa, retrieval, entailment or reasoning",
    "evaluate": "measure a model on vqa, retrieval, entailment or reasoning, with floors and intervals",
    "inspect": "measure a pretrained model: codebook, MIM against its floors, retrieval; show its visual words",
    "data": "write drawn scenes, with everything that is true of them, to Parquet files",
    "demo": "fine-tune the bundled checkpoint on easy-VQA, evaluate it and write a report",
    "publish": "put a model on the Hub with a card and its code, loadable without this package, too",
}


def main(argv: list[str] | None = None) -> int:
    """Entry point of `cbvila` and `python -m transformers_cbvila`; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    parser = _parser()
    if not argv:
        parser.print_help()
        return 0
    name = parser.parse_args(argv[:1]).command
    with in_one_line(f"cbvila {name}") as outcome:
        refuse_nul(argv)
        command = import_module(f".{name}", __name__)
        outcome.when_interrupted = getattr(command, "INTERRUPTED", outcome.when_interrupted)
        parsed = command.parse(argv[1:])
        from ..registration import register

        register()  # importing the package leaves it to the command line, see there
        outcome.status = command.run(*parsed)
    return outcome.status


def _parser() -> Parser:
    from .. import __version__

    lines = (f"  {name:<10} {text}" for name, text in COMMANDS.items())
    parser = Parser(
        prog="cbvila",
        usage="cbvila COMMAND [OPTION VALUE ...]",
        description="CB-ViLA: vision-language models with a learned visual codebook.",
        epilog="commands:\n" + "\n".join(lines) + "\n\ncbvila COMMAND --help says more of each. An error is one line, "
        f"and the exit status 1; with {TRACEBACK}=1 set there is its traceback, too.",
    )
    parser.add_argument("--version", action="version", version=f"cbvila {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    return parser
