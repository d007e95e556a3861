"""Options and error handling that the conversion commands share."""

import argparse
import sys
from collections.abc import Callable

from transformers.utils import logging


def parser(description: str | None, example: str) -> argparse.ArgumentParser:
    """Returns a parser with the options of every conversion, which keeps line breaks in description and example."""
    made = argparse.ArgumentParser(
        description=description, epilog=example, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--output_dir", required=True, metavar="FOLDER", help="output folder; must not exist")
    made.add_argument("--overwrite", action="store_true", help="replace an existing output folder")
    return made


def add_model_options(made: argparse.ArgumentParser) -> None:
    """Adds the options of conversions into a CB-ViLA model."""
    made.add_argument("--no_processor", action="store_true", help="save no tokenizer and no image processor")
    made.add_argument("--not_strict", action="store_true", help="continue with unknown and missing keys")
    made.add_argument("--seed", type=int, default=0, help="seed of randomly initialized weights (default: 0)")


def positive(text: str) -> int:
    """Parses a positive number."""
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return int(text)


def run(main: Callable[[list[str] | None], None], name: str, argv: list[str] | None = None) -> int:
    """Runs a command; errors in its input become one line on stderr and the exit status 1."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        main(argv)
    except (ValueError, OSError, ImportError) as error:
        print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0
