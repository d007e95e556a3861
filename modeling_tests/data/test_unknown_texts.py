"""The warning about texts with tokens that the tokenizer does not know."""

import pytest
from tiny import tiny_processor

from transformers_cbvila.data.unknown_texts import warn_of_unknown_tokens


@pytest.mark.parametrize(
    "texts, share",
    [
        (["红色的圆圈"], "100%"),
        (["a red half", "绿 绿 绿"], "50%"),
        (["a red half is it"] * 2 + ["绿"], None),  # 1 of 11
        (["a red half", "it is red"], None),
        ([], None),
    ],
)
def test_warn_of_unknown_tokens_from_a_tenth_on(texts, share, logged):
    warn_of_unknown_tokens(tiny_processor().tokenizer, iter(texts), "captions")
    if share is None:
        assert not logged()
    else:
        assert f"does not know {share} of the tokens of the captions, such as '" in logged.text
        assert "--tokenizer" in logged.text and any(text in logged.text for text in texts if not text.isascii())
