"""Bundled checkpoints, by what they need."""

from pathlib import Path

import pytest

from transformers_cbvila.bundled import bundled_checkpoints

# It reads images for a language model, which does not come with the package.
CAPTIONING = "cbvila-scenes-captions"
COMPLETE = [name for name in bundled_checkpoints() if name != CAPTIONING]
LANGUAGE_MODEL = Path(__file__).parents[1] / ".cache" / "smollm2-135m-instruct"
needs_language_model = pytest.mark.skipif(not LANGUAGE_MODEL.is_dir(), reason="no language model is there: make lm")
