"""Runs the app.py of a Space from the Space's own files.

Run as a script in a process of its own: python -P fresh_app.py FOLDER. This package is
found in that folder or nowhere.
"""

import os
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

_PACKAGE = "transformers_cbvila"


def main(folder: Path) -> None:
    """Runs the app of a folder, which is absolute, until the process is ended."""
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    found = find_spec(_PACKAGE)
    if found is None or found.origin is None or not Path(found.origin).is_relative_to(folder):
        raise SystemExit(f"{folder} has no {_PACKAGE}")
    runpy.run_path("app.py", run_name="__main__")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
