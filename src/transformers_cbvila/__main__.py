"""Runs the command line: `python -m transformers_cbvila` is the same as `cbvila`."""

import sys

from .cli import main

sys.exit(main())
