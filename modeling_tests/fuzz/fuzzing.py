"""Runs generated command lines and calls, and counts how they end: done, refused in one clear line, or a fault.

    python modeling_tests/fuzz/fuzzing.py --cases 300 --seed 0

Every case is drawn from the seed and its number alone, so that a fault is had again by its name, `0-17`.
"""

import argparse
import contextlib
import io
import os
import random
import re
import shlex
import signal
import sys
import tempfile
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))  # where pytest finds what tests share, for a run by hand
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

import datasets
import tiny
import tiny_language
from odd_calls import Calls
from odd_commands import Commands

from transformers_cbvila.cli import main
from transformers_cbvila.model.modeling_cbvila_pretraining import CBViLAForPreTraining
from transformers_cbvila.tasks.registry import TASKS

SURFACES = ["pretrain", "stream", "finetune", "evaluate", "inspect", "publish", "pipeline", "retriever"]
SECONDS = 120  # of one case; publishing compares in a fresh process
LONGEST = 2000  # characters of a message
# Words of Python's, torch's or NumPy's own errors: whoever reads them does not know what to change.
_JARGON = re.compile(
    r"object (is not|has no|cannot|of type)|not supported between|NoneType' object"
    r"|index out of range|list index|unhashable|unpack|shape '|size mismatch|mat1 and mat2"
    r"|expected scalar type|dtype\(|invalid literal"
    r"|could not convert string|must be real number|Expecting value|0-d array|inhomogeneous"
    r"|a Tensor with|non-empty|division by zero|ambiguous|Errno 36|null (byte|character)|setting an array element"
)


@dataclass
class Ending:
    """How a case ended.

    Attributes:
        kind: `done`, `refused` or `fault`.
        said: The message.
    """

    kind: str
    said: str = ""


def judged(message: str, one_line: bool) -> Ending:
    """A refusal, if its message is one that a person can use."""
    message = message.strip()
    unclear = not message or len(message) > LONGEST or _JARGON.search(message) or (one_line and "\n" in message)
    return Ending("fault" if unclear else "refused", message)


class _TooLong(BaseException):
    """Not an Exception: nothing that a case does catches it."""


@contextlib.contextmanager
def at_most(seconds: int):
    def stop(*_: Any) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def end_of_command(argv: list[str]) -> Ending:
    out, err = io.StringIO(), io.StringIO()
    status: Any
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), at_most(SECONDS):
            status = main(argv)
    except SystemExit as stopped:
        status = stopped.code
    except _TooLong:
        return Ending("fault", f"still running after {SECONDS} s")
    except BaseException as error:
        return Ending("fault", f"escaped: {type(error).__name__}: {error}")
    said = err.getvalue()
    if status == 0:
        return Ending("fault", said[-LONGEST:]) if "Traceback" in said else Ending("done")
    lines = [line for line in said.splitlines() if line.startswith("cbvila")]
    if status not in (1, 2) or len(lines) != 1 or said.splitlines()[-1] != lines[0] or "Traceback" in said:
        return Ending("fault", f"status {status}: {said[-LONGEST:]}")
    return judged(lines[0], one_line=True)


def end_of_call(call: Any) -> Ending:
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), at_most(SECONDS):
            call()
    except _TooLong:
        return Ending("fault", f"still running after {SECONDS} s")
    except (ValueError, TypeError, OSError, ImportError) as error:
        ending = judged(str(error), one_line=False)
        return Ending(ending.kind, f"{type(error).__name__}: {ending.said}")
    except Exception as error:
        return Ending("fault", f"{type(error).__name__}: {error}")
    return Ending("done")


class Fuzz:
    """Cases in a folder of their own, with tiny models to name."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.folder, self.seed = folder, seed
        models = _save_models(folder)
        self.working = folder / "cwd" / "in" / "it"  # ../.. is still below the folder
        self.working.mkdir(parents=True)
        data = folder / "data"
        data.mkdir()
        self.commands, self.calls = Commands(models, data), Calls(models, data)

    def case(self, number: int) -> tuple[str, Ending]:
        """Runs one case; what it was, in words, and how it ended."""
        surface, draw = SURFACES[number % len(SURFACES)], random.Random(f"{self.seed}-{number}")
        cache = mock.patch.object(datasets.config, "HF_DATASETS_CACHE", str(self.folder / "cache"))
        before = Path.cwd()
        os.chdir(self.working)
        try:
            with warnings.catch_warnings(), cache:
                warnings.simplefilter("ignore")
                if surface in ("pipeline", "retriever"):
                    return surface, end_of_call(self.calls.draw(surface, draw))
                argv = self.commands.draw(surface, draw)
                return shlex.join(argv), end_of_command(argv)
        finally:
            os.chdir(before)


def _save_models(folder: Path) -> dict[str, str]:
    models = {}
    for name, head in {
        "pretrained": CBViLAForPreTraining,
        **{name: task.head for name, task in TASKS.items()},
    }.items():
        models[name] = str(folder / name)
        if name in ("captioning", "generation"):  # its language model is outside the checkpoint
            model = tiny_language.reading_model(tiny_language.language_model())
            model.config.language_model = tiny_language.save_language_model(folder / "language_model")
            model.save_pretrained(models[name])
            tiny_language.reading_processor().save_pretrained(models[name])
            continue
        fields = {"num_images": 1} if name == "reasoning" else {}
        tiny.build(head, **fields).save_pretrained(models[name])
        tiny.tiny_processor().save_pretrained(models[name])
    return models


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    counts: Counter = Counter()
    with tempfile.TemporaryDirectory() as folder:
        fuzz = Fuzz(Path(folder), options.seed)
        for number in range(options.first, options.first + options.cases):
            what, ending = fuzz.case(number)
            counts[SURFACES[number % len(SURFACES)], ending.kind] += 1
            if ending.kind == "fault":
                print(f"{options.seed}-{number} {what[:1500]}\n    {ending.said[:1500]}", flush=True)
    print(f"{'':<12}{'done':>8}{'refused':>9}{'fault':>7}")
    for surface in [*SURFACES, None]:
        row = [sum(n for (s, k), n in counts.items() if k == kind and surface in (s, None)) for kind in KINDS]
        print(f"{surface or 'all':<12}{row[0]:>8}{row[1]:>9}{row[2]:>7}")


KINDS = ("done", "refused", "fault")

if __name__ == "__main__":
    run()
