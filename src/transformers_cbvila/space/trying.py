"""Tries the app of a staged Space: starts it in a fresh process, and fetches its page."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryFile
from threading import Timer
from typing import IO
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from ..app.page import TITLE
from . import fresh_app

_HOST = "127.0.0.1"
_LONGEST = 1800  # seconds, as long as a Space waits for its app


def try_app(folder: Path) -> None:
    """Starts the app of a Space with the Space's own files only, on a free port, and fetches its page.

    Args:
        folder: The staged Space, absolute; nothing is written there.

    Raises:
        ValueError: If the app does not start, or its page is another one.
    """
    command = [sys.executable, "-P", fresh_app.__file__, str(folder)]
    with TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(command, env=_environment(), stdout=subprocess.PIPE, stderr=errors, text=True)
        watch = Timer(_LONGEST, process.kill)
        watch.start()
        try:
            address = _address(process)
            if address is None:
                raise ValueError(f"the app in {folder} does not start from there in a fresh process: {_last(errors)}")
            _require_page(address, folder)
        finally:
            watch.cancel()
            process.kill()  # it would serve for ever
            process.communicate()


def _environment() -> dict[str, str]:
    """Returns environment variables without settings of Gradio, and without traces of the run in the folder."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GRADIO_")}
    port = str(_free_port())
    own = {"GRADIO_SERVER_NAME": _HOST, "GRADIO_SERVER_PORT": port, "GRADIO_ANALYTICS_ENABLED": "False"}
    return {**inherited, **own, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"}


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((_HOST, 0))
        return probe.getsockname()[1]


def _address(process: subprocess.Popen[str]) -> str | None:
    """Returns the address that the app says it is at; None if it ends before."""
    assert process.stdout is not None
    for line in process.stdout:
        found = re.search(rf"http://{re.escape(_HOST)}:\d+/", line)
        if found:
            return found[0]
    return None


def _require_page(address: str, folder: Path) -> None:
    """Raises a ValueError if there is no page at an address, or not the app's."""
    try:
        # Without proxies: it is on this computer.
        with build_opener(ProxyHandler({})).open(address, timeout=_LONGEST) as answer:
            text = answer.read().decode("utf-8", errors="replace")
    except (URLError, OSError) as error:
        raise ValueError(f"the app in {folder} starts, but gives no page: {error}") from None
    if TITLE not in text:
        raise ValueError(f"the app in {folder} gives a page without its title, {TITLE}")


def _last(errors: IO[str]) -> str:
    """Returns the last line that the process wrote to stderr, which names its error."""
    errors.seek(0)
    lines = errors.read().strip().splitlines()
    return lines[-1].strip() if lines else "it says nothing"
