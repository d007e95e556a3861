"""The words of a text, and the tokens that each of them is made of."""

from typing import Any, NamedTuple

from ..inspection.row_words import WORD
from ..model.messages_cbvila import shown


class Word(NamedTuple):
    """A word of a text, and the places of its tokens among all tokens of the text, [CLS] first."""

    text: str
    tokens: list[int]


def words_of_text(processor: Any, text: str, length: int) -> list[Word]:
    """Returns the words of a text with their tokens, in the order of the text. Punctuation marks are none.

    Args:
        processor: The processor.
        text: The text.
        length: Number of tokens with special ones that the model read; words of those that were cut are left out.

    Raises:
        ValueError: If there is no word, or the tokenizer does not say which letters a token stands for.
    """
    tokenizer = processor.tokenizer
    if not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__} does not say which letters a token stands for: load a fast tokenizer."
        )
    spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    read = length - 1 - processor.add_sep_token
    kept = spans[-read:] if tokenizer.truncation_side == "left" else spans[:read]
    places = [(place, start, end) for place, (start, end) in enumerate(kept, start=1)]
    words = [
        Word(match[0], [place for place, start, end in places if start < match.end() and end > match.start()])
        for match in WORD.finditer(text)
    ]
    words = [word for word in words if word.tokens]
    if not words:
        raise ValueError(f"text={shown(text)} has no word to explain, only signs: write one or several words.")
    return words
