"""What a long silent part of a training is doing, said once, by one process."""

import sys

from transformers import TrainingArguments


def say(args: TrainingArguments, message: str) -> None:
    """Prints a line to the terminal, on the main process only. Not a warning: it is what should happen."""
    if args.process_index == 0:
        print(message, file=sys.stderr, flush=True)
