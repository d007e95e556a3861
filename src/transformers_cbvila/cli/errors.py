"""Reports the error of a command in one line, and tells user errors from bugs."""

import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..model.messages_cbvila import shown
from .own_files import is_own_file

TRACEBACK = "CBVILA_TRACEBACK"  # environment variable: raise errors instead of reporting them in a line
LONGEST = 1900  # characters of a message, below the 2,000 that fit on a screen

# Errors of data, options, files, the installation or the network. Anything else is a bug of this program.
# (FloatingPointError: a loss or weights that are not finite, which the trainer raises.)
_USERS = (ValueError, OSError, ImportError, FloatingPointError)
# torch raises the error of a data loader process with its traceback as the message; the error's own message is last.
_OF_A_WORKER = re.compile(r"Caught \w+ in DataLoader worker process .*\n(?:\w+\.)*\w+: (.*)", re.DOTALL)
_NAME = re.compile(r"""(?<![\w'"`./-])[a-z]\w*_\w*\b(?!['"`/(\[]|\.\w)""")  # not in quotes, paths or code
USERS_FAULT, OUR_FAULT, INTERRUPTED = 1, 70, 130  # exit statuses; 70 is the EX_SOFTWARE of sysexits.h


@dataclass
class Outcome:
    """The exit status of a command, and what to print when it is interrupted."""

    status: int = 0
    when_interrupted: str = "Interrupted."
    options: frozenset[str] = frozenset()  # names of the command's options, which messages show as --name


def refuse_nul(arguments: list[str]) -> None:
    """Checks that no argument has a NUL character, which a program that calls `main` can pass (no shell can).

    Raises:
        ValueError: If one has.
    """
    for argument in arguments:
        if "\0" in argument:
            raise ValueError(f"{shown(argument)} has a NUL character in it; file names and options cannot have one.")


@contextmanager
def in_one_line(command: str) -> Iterator[Outcome]:
    """Prints an exception of the block as one line to stderr, and sets the exit status of the outcome."""
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
        print(f"{command}: {_line(error, outcome.options)}", file=sys.stderr)


def option_names(parsed: Iterable[Any]) -> frozenset[str]:
    """Returns the names of options that a text can only mean as such: those of several words.

    Args:
        parsed: Namespaces and dataclasses with the values of options, and other things.
    """
    names = {name for part in parsed for name in getattr(part, "__dict__", ())}
    return frozenset(name for name in names if "_" in name.strip("_") and name == name.strip("_"))


def _with_dashes(text: str, options: frozenset[str]) -> str:
    """Returns a text with names of options as a command line has them; names in quotes, paths and code stay."""
    return _NAME.sub(lambda found: f"--{found[0]}" if found[0] in options else found[0], text)


def _line(error: Exception, options: frozenset[str]) -> str:
    of_a_worker = _OF_A_WORKER.match(str(error))
    text = " ".join((of_a_worker[1] if of_a_worker else str(error)).split())
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f"{shown(os.fspath(error.filename))}: {error.strerror}"  # without Python's "[Errno 2]"
    if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
        return f"there is too little memory: take smaller batches ({_cut(text)})"
    if isinstance(error, _USERS):
        return _cut(_with_dashes(text, options)) or type(error).__name__
    what = f"{type(error).__name__}: {_cut(text)}" if text else type(error).__name__
    own = _own_file(error)
    if own is not None:
        return f"{shown(own, 255)} failed; {TRACEBACK}=1 shows where ({what})"
    return (
        f"this is a fault of cbvila, and not of what it was given; please report it with the traceback that "
        f"{TRACEBACK}=1 shows ({what})"
    )


def _own_file(error: Exception) -> str | None:
    """Returns the last file that an error went through of those that `--import` named, and of their folders."""
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return next((file for file in reversed(files) if is_own_file(file)), None)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"
