"""The conversions are scripts, not a package: their folder goes on the path as `python conversion/x.py` puts it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "conversion"))
