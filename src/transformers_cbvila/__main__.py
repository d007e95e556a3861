"""`python -m transformers_cbvila`, the same as `cbvila`."""

import sys

from .cli import main

sys.exit(main())
