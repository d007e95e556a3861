"""The share of texts that a tokenizer does not know, and the warning."""

import pytest
from tiny_vqa import tiny_processor

from transformers_cbvila.model.unknown_tokens_cbvila import unknown_token_share, unknown_words, warn_of_unknown_texts


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_processor().tokenizer


@pytest.mark.parametrize(
    "texts, share",
    [
        (["red circle"], 0.0),
        (["圆圈"], 1.0),
        (["red circle", "zebra zebra"], 0.5),
        (["red", "zebra", "red", "red"], 0.25),
        ([], 0.0),
        ([""], 0.0),
    ],
)
def test_unknown_token_share(tokenizer, texts, share):
    assert unknown_token_share(tokenizer, texts) == share


@pytest.mark.parametrize(
    "text, words",
    [
        ("red circle", []),
        ("a Zebra, a red zebra and a Zebra", ["Zebra", "zebra"]),
        ("圆圈 red", ["圆", "圈"]),
        ("", []),
    ],
)
def test_unknown_words_are_named_as_written(tokenizer, text, words):
    known = unknown_words(tokenizer, "a and ,")  # which this vocabulary may lack
    assert [word for word in unknown_words(tokenizer, text) if word not in known] == words


def test_a_tokenizer_without_offsets_names_no_words():
    class Slow:
        is_fast = False

    assert unknown_words(Slow(), "zebra") == []


def test_unknown_token_share_without_unk_token_is_0(recwarn):
    class Bytes:
        unk_token_id = None

        def __call__(self, texts, **options):
            return {"input_ids": [list(text.encode()) for text in texts]}

    assert unknown_token_share(Bytes(), ["圆圈"]) == 0.0
    warn_of_unknown_texts(Bytes(), ["圆圈", ""], "questions")
    assert not recwarn.list


def test_warn_of_unknown_texts_warns_once(tokenizer):
    with pytest.warns(UserWarning, match="nothing of 2 of 3 questions, e.g. 'zebra'") as caught:
        warn_of_unknown_texts(tokenizer, ["zebra", "red zebra", "圆圈"], "questions")
    assert len(caught) == 1 and caught[0].filename == __file__


def test_warn_of_unknown_texts_ignores_texts_with_a_known_word(tokenizer, recwarn):
    warn_of_unknown_texts(tokenizer, ["red zebra", ""], "questions")
    assert not recwarn.list


def test_warn_of_unknown_texts_cuts_long_texts(tokenizer):
    with pytest.warns(UserWarning) as caught:
        warn_of_unknown_texts(tokenizer, ["zebra " * 10_000], "questions")
    assert len(str(caught[0].message)) < 400
