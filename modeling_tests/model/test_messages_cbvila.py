"""Values in messages: short ones in full, long ones cut."""

import numpy as np
import pytest

from transformers_cbvila.model.messages_cbvila import SHOWN_CHARACTERS, listed, one_line, shown, shown_error


@pytest.mark.parametrize("value", ["red", 7, None, ["a", "b"], b"\x89PNG", {"image": None}])
def test_shown_short_values_are_their_repr(value):
    assert shown(value) == repr(value)


@pytest.mark.parametrize(
    ("value", "size"),
    [("x" * 400_152, "(400,152 characters)"), (b"y" * 1000, "(1,000 bytes)"), (list(range(999)), "list")],
)
def test_shown_cuts_long_values(value, size):
    text = shown(value)
    assert size in text and len(text) < SHOWN_CHARACTERS + 40


def test_shown_is_one_line():
    assert "\n" not in shown(np.zeros((20, 20)))


def test_one_line_and_shown_error_cut_texts():
    assert one_line("a\n  b") == "a b"
    assert one_line("x" * 500, 20) == "x" * 20 + "…"
    assert shown_error(OSError("image\nis truncated")) == "OSError: image is truncated"


def test_listed_cuts_and_counts_names():
    assert listed(["image", "text"]) == "image, text"
    text = listed([f"column_{i}" for i in range(1024)], 100)
    assert text.startswith("column_0, column_1, ") and text.endswith(", … (1,024 in all)") and len(text) < 130
    assert all(name.startswith("column_") for name in text.removesuffix(", … (1,024 in all)").split(", "))
