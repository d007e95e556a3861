"""Values in messages: short ones as they are, long ones cut, whatever they are."""

import numpy as np
import pytest

from transformers_cbvila.model.messages_cbvila import SHOWN_CHARACTERS, shown


@pytest.mark.parametrize("value", ["red", 7, None, ["a", "b"], b"\x89PNG", {"image": None}])
def test_short_values_are_their_repr(value):
    assert shown(value) == repr(value)


@pytest.mark.parametrize(
    ("value", "size"),
    [("x" * 400_152, "(400,152 characters)"), (b"y" * 1000, "(1,000 bytes)"), (list(range(999)), "list")],
)
def test_long_values_are_cut_and_say_how_long_they_are(value, size):
    text = shown(value)
    assert size in text and len(text) < SHOWN_CHARACTERS + 40


def test_what_is_shown_stands_on_one_line():
    assert "\n" not in shown(np.zeros((20, 20)))
