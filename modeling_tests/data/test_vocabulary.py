"""train_wordpiece against a naive trainer, and that it is reproducible."""

import os
import subprocess
import sys
from collections import Counter

import pytest

from transformers_cbvila.data.easy_vqa import load_easy_vqa
from transformers_cbvila.data.vocabulary import SPECIAL_TOKENS, train_wordpiece

WORDS = {"low": 5, "lower": 2, "newest": 6, "widest": 3}
TEXTS = [" ".join([word] * count) for word, count in WORDS.items()]


def naive(words, merges):
    """Counts all pairs before every merge."""
    spelt = {word: [word[0], *("##" + letter for letter in word[1:])] for word in words}
    made = []
    for _ in range(merges):
        counts = Counter()
        for word, pieces in spelt.items():
            for pair in zip(pieces, pieces[1:], strict=False):
                counts[pair] += words[word]
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        made.append(best[0] + best[1].removeprefix("##"))
        for word, pieces in spelt.items():
            while any(pair == best for pair in zip(pieces, pieces[1:], strict=False)):
                place = list(zip(pieces, pieces[1:], strict=False)).index(best)
                pieces = pieces[:place] + [made[-1]] + pieces[place + 2 :]
            spelt[word] = pieces
    return made


def pieces_of(tokenizer):
    vocabulary = tokenizer.get_vocab()
    return sorted(vocabulary, key=vocabulary.get)


def test_train_wordpiece_merges_the_most_frequent_pairs():
    letters = pieces_of(train_wordpiece(TEXTS, 0, 16))
    assert letters[:5] == SPECIAL_TOKENS and letters[5:15] == list("deilnorstw")
    assert set(letters[15:]) == {"##" + letter for word in WORDS for letter in word[1:]}
    for merges in range(1, 12):
        pieces = pieces_of(train_wordpiece(TEXTS, len(letters) + merges, 16))
        assert pieces == letters + naive(WORDS, merges)
    assert pieces[len(letters) : len(letters) + 3] == ["##es", "##est", "##ow"]


def test_train_wordpiece_equals_naive_trainer_on_easy_vqa():
    words = Counter(
        word for text in load_easy_vqa("train")["question"][0] for word in text.lower().rstrip("?").split()
    )
    letters = len(train_wordpiece([" ".join(words)], 0, 16))
    texts = [" ".join([word] * count) for word, count in words.items()]
    made = pieces_of(train_wordpiece(texts, letters + 20, 64))[letters:]
    assert made == naive(words, 20)[: len(made)] and len(made) > 10


def test_train_wordpiece_tokenizer_encodes_and_decodes():
    tokenizer = train_wordpiece(["A Lowest, lower low!", "low low"], 60, 8)
    assert tokenizer.tokenize("LOW lower") == ["low", "lowe", "##r"]
    assert tokenizer.tokenize("low q") == ["low", "[UNK]"]
    assert tokenizer.decode(tokenizer("a lower").input_ids, skip_special_tokens=True) == "a lower"
    assert tokenizer.model_max_length == 8
    assert (tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id) == (0, 2, 3)


def test_train_wordpiece_drops_rare_letters_and_pairs():
    many = "".join(chr(0x4E00 + i) for i in range(300))
    pieces = pieces_of(train_wordpiece(["a b c", "a b c", many], 1000, 8))
    assert len(pieces) == len(SPECIAL_TOKENS) + 200 and {"a", "b", "c"} <= set(pieces)


def test_train_wordpiece_does_not_depend_on_text_order():
    texts = load_easy_vqa("train")["question"][0]
    first, second = (train_wordpiece(given, 120, 16).get_vocab() for given in (texts, texts[::-1]))
    assert first == second


@pytest.mark.slow
def test_train_wordpiece_gives_every_process_the_same_ids():
    code = (
        "from transformers_cbvila.data.vocabulary import train_wordpiece\n"
        "print(sorted(train_wordpiece(['a red square', 'a blue one', 'one grey circle'], 60, 8).get_vocab().items()))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in (1, 2)
    }
    assert len(seen) == 1 and "'one'" in seen.pop()
