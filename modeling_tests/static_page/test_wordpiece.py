"""The page's WordPiece gives the ids of the tokenizer, whatever is written."""

import json
import random
import unicodedata
from functools import cache

import browser
import pytest
from transformers import AutoTokenizer, BertTokenizer

from transformers_cbvila import bundled_checkpoint
from transformers_cbvila.static_page import staging

SCRIPT = """async ({tokenizer, texts}) => {
  const { WordPiece } = await import('/wordpiece.js');
  const wordPiece = new WordPiece(tokenizer);
  return texts.map((text) => wordPiece.ids(text));
}"""
# What is thought of them has changed since `tokenizers` made its tables.
_DISPUTED = {"\u166d", "\u1734"}
_LAST_PLANE = 0x30000  # beyond are private use and tags


@cache
def known_characters():
    """Characters of Unicode 3.2 that are what they were then: of newer ones browsers know more than `tokenizers`.

    Of those that are many, letters without case such as ideographs and those for private use, only some.
    """
    kinds = {}
    for letter in map(chr, range(_LAST_PLANE)):
        kind = unicodedata.category(letter)
        if unicodedata.ucd_3_2_0.category(letter) == kind not in ("Cn", "Cs") and letter not in _DISPUTED:
            kinds.setdefault(kind, []).append(letter)
    many = {"Lo": 50, "Co": 500}
    return [letter for kind, letters in kinds.items() for letter in letters[:: many.get(kind, 1)]]


WRITTEN = [
    "a red Circle, left of the BLUE square!",
    "  two\tspaces\n and\r\nlines\u00a0here\u3000 ",
    "Crème brûlée, ÀÉÎÕÜ, Åsa; naïve façade; e\u0301 and İstanbul ΣΊΣΥΦΟΣ",
    "红色的圆 and 青い四角 and 빨간 원 and 𠀋",
    "don't—“quoted” (well-known) #1 $5 50% a+b=c ~^`|\\ £ € ©",
    "[CLS] a [MASK] circle [SEP][PAD] [mask] [UNK",
    "🟥 🧩👩‍🔬 flags 🇫🇷 and a zero\u200bwidth\u00adhyphen\x00nul\ufffdend\ufeff",
    "x" * 100 + " " + "x" * 101 + " 1234567890123",
    "", "   ", "\x0b\x0c\x85a\u2028b\u2029c", "ǅ ﬁ Ⅷ ß ẞ ſ K",
]  # fmt: skip


@pytest.fixture(scope="module")
def page(chromium):
    with browser.served(staging.CODE_FOLDER) as address:
        page = browser.watched(chromium, address, 1280, "light")
        yield page
        page.context.close()


def random_texts(words, number=1500):
    """Texts of words, of parts of words, and of any characters, with and without spaces."""
    rng = random.Random(0)
    kinds = (
        lambda: rng.choice(words),
        lambda: rng.choice(words).upper(),
        lambda: rng.choice(words)[: rng.randint(1, 4)],
        lambda: rng.choice(known_characters()),
        lambda: chr(rng.randint(1, 0x250)),
    )
    return [rng.choice(["", " "]).join(rng.choice(kinds)() for _ in range(rng.randint(1, 12))) for _ in range(number)]


def assert_same_ids(page, tokenizer, texts):
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    found = page.evaluate(SCRIPT, {"tokenizer": content, "texts": texts})
    expected = tokenizer(texts, add_special_tokens=False)["input_ids"]
    wrong = [(text, a, b) for text, a, b in zip(texts, found, expected, strict=True) if a != b]
    assert not wrong, wrong[:3]


@pytest.mark.parametrize("name", ["cbvila-scenes", "cbvila-tiny"])
def test_ids_are_those_of_the_tokenizer(name, page):
    tokenizer = AutoTokenizer.from_pretrained(bundled_checkpoint(name))
    words = [piece.removeprefix("##") for piece in tokenizer.get_vocab()]
    assert_same_ids(page, tokenizer, [*WRITTEN, *random_texts(words)])


@pytest.mark.parametrize("options", [{}, {"do_lower_case": False}, {"strip_accents": False}, {"strip_accents": True}])
def test_every_known_character_is_read_as_by_the_tokenizer(options, page):
    """With a vocabulary of all characters, so that each of them is seen in the ids."""
    known = known_characters()
    letters = sorted({*known, *(letter.lower() for letter in known if len(letter.lower()) == 1)} - {" "})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    tokenizer = BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, **options)
    texts = ["".join(f"a{letter}b " for letter in known[i : i + 50]) for i in range(0, len(known), 50)]
    assert_same_ids(page, tokenizer, texts)
