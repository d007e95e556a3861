"""Says which words of a text the model of a command does not know."""

from __future__ import annotations

import sys
from typing import Any

from ..model.messages_cbvila import listed, shown


def note_unknown_words(tokenizer: Any, model: str, *texts: str | None) -> None:
    """Prints a line to the standard error if a text has words that a tokenizer reads as unknown tokens.

    Args:
        tokenizer: The model's tokenizer.
        model: The model as it was named.
        texts: The texts; `None` where none was given.
    """
    from ..model.unknown_tokens_cbvila import unknown_words

    words = list(dict.fromkeys(word for text in texts if text for word in unknown_words(tokenizer, text)))
    if words:
        print(
            f"{model} does not know {listed([shown(word) for word in words])}: unknown words are all the same to it.",
            file=sys.stderr,
        )
