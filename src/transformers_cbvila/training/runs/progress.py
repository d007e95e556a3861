"""Progress messages of a run, printed by the main process."""

import sys

from transformers import TrainingArguments


def log_main_process(args: TrainingArguments, message: str) -> None:
    """Prints a line to stderr, on the main process only: information, not a warning."""
    if args.process_index == 0:
        print(message, file=sys.stderr, flush=True)
