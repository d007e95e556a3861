"""What a command says when it fails: one line, and whose fault it is."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..model.messages_cbvila import shown

TRACEBACK = "CBVILA_TRACEBACK"  # of the environment: errors are raised, and not said in a line
LONGEST = 1900  # characters of a message, below the 2,000 that fit on a screen

# What is wrong with data, options, files, this installation or the network. Anything else is a fault of this program.
# (FloatingPointError: a loss or weights that are not finite, which the trainer names.)
_USERS = (ValueError, OSError, ImportError, FloatingPointError)
# torch raises the error of a process that loads data with its traceback as the message; what it said comes last.
_OF_A_WORKER = re.compile(r"Caught \w+ in DataLoader worker process .*\n(?:\w+\.)*\w+: (.*)", re.DOTALL)
USERS_FAULT, OUR_FAULT, INTERRUPTED = 1, 70, 130  # exit statuses; 70 is the EX_SOFTWARE of sysexits.h


@dataclass
class Outcome:
    """How a command ends."""

    status: int = 0
    when_interrupted: str = "Interrupted."


def refuse_nul(arguments: list[str]) -> None:
    """Raises a ValueError for an argument with a NUL character, which Python's files would call an embedded byte.

    No shell passes one; a program that calls `main` can.
    """
    for argument in arguments:
        if "\0" in argument:
            raise ValueError(f"{shown(argument)} has a NUL character in it, which the name of no file or option has.")


@contextmanager
def in_one_line(command: str) -> Iterator[Outcome]:
    """Says an exception of the block in one line of stderr, and puts the exit status into the outcome."""
    outcome = Outcome()
    try:
        yield outcome
    except KeyboardInterrupt as interrupt:
        print(interrupt.args[0] if interrupt.args else f"\n{outcome.when_interrupted}", file=sys.stderr)
        outcome.status = INTERRUPTED
    except Exception as error:
        if os.environ.get(TRACEBACK, "0") not in ("", "0"):
            raise
        outcome.status = USERS_FAULT if isinstance(error, _USERS) else OUR_FAULT
        print(f"{command}: {_line(error)}", file=sys.stderr)


def _line(error: Exception) -> str:
    of_a_worker = _OF_A_WORKER.match(str(error))
    text = " ".join((of_a_worker[1] if of_a_worker else str(error)).split())
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f"{shown(os.fspath(error.filename))}: {error.strerror}"  # without Python's "[Errno 2]"
    if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
        return f"there is too little memory: take smaller batches ({_cut(text)})"
    if isinstance(error, _USERS):
        return _cut(text) or type(error).__name__
    return (
        f"this is a fault of cbvila, and not of what it was given; please report it with the traceback that "
        f"{TRACEBACK}=1 shows ({type(error).__name__}: {_cut(text)})"
    )


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"
