"""Runs commands of `cbvila`, each in a process of its own, and logs what they print."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path


def run_commands(commands: Iterable[Sequence[str]], folder: Path) -> None:
    """Runs commands one after the other; `log.txt` in the folder gets each of them with its output.

    Args:
        commands: Arguments of `cbvila`.
        folder: The folder; it is made if it is not there.

    Raises:
        subprocess.CalledProcessError: If a command fails; those after it do not run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # A command sees one thread whatever the machine has, so that its sums are those of the others.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / "log.txt").open("a") as log:
        for arguments in commands:
            print(shlex.join(["cbvila", *arguments]), file=log, flush=True)
            command = [sys.executable, "-m", "transformers_cbvila", *arguments]
            subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environment, check=True)
