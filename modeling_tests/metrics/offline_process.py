"""A process that may not reach the Hub, and has a cache of its own."""

import os
import subprocess
import sys


def run_offline(code, folder, *arguments):
    """Runs Python code in `folder`; fails with what the process said.

    evaluate decides at import where it writes its caches, so that it takes a new process to have them elsewhere.
    """
    environment = os.environ | {"HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder, timeout=600)
    assert finished.returncode == 0, finished.stderr
