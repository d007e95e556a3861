"""Unknown tokens in texts: a model reads all words outside its vocabulary as [UNK]."""

import warnings
from collections.abc import Sequence
from typing import Any

from .messages_cbvila import shown


def unknown_token_share(tokenizer: Any, texts: Sequence[str]) -> float:
    """Returns the share of unknown tokens among the tokens of all texts, from 0 to 1.

    Args:
        tokenizer: A tokenizer of transformers. The share is 0 without an unknown token (byte-level tokenizers).
        texts: The texts, encoded without special tokens.

    Returns:
        The share; 0.0 if there are no tokens.
    """
    rows = _token_ids(tokenizer, texts)
    return sum(row.count(tokenizer.unk_token_id) for row in rows) / max(1, sum(map(len, rows)))


def warn_of_unknown_texts(tokenizer: Any, texts: Sequence[str], kind: str, stacklevel: int = 2) -> bool:
    """Warns if some texts consist of unknown tokens only, between which a model cannot distinguish.

    Args:
        tokenizer: A tokenizer of transformers.
        texts: The texts, encoded without special tokens.
        kind: What the warning calls them, in the plural: `"questions"`.
        stacklevel: As in `warnings.warn`; 2 shows the line that calls this function.

    Returns:
        Whether there are such texts.
    """
    unknown = {tokenizer.unk_token_id}
    found = [text for text, row in zip(texts, _token_ids(tokenizer, texts), strict=True) if set(row) == unknown]
    if found:
        warnings.warn(
            f"The tokenizer knows nothing of {len(found)} of {len(texts)} {kind}, e.g. {shown(found[0])}: to the "
            "model all of them are the same. Use a model whose tokenizer knows the language.",
            stacklevel=stacklevel,
        )
    return bool(found)


def unknown_words(tokenizer: Any, text: str) -> list[str]:
    """Returns the words of a text that a tokenizer reads as unknown tokens, each once, as they are written.

    Args:
        tokenizer: A tokenizer of transformers; one without offsets (a slow one) tells none.
        text: The text.
    """
    if not tokenizer.is_fast:
        return []
    read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    places = zip(read["input_ids"], read["offset_mapping"], strict=True)
    return list(dict.fromkeys(text[start:end] for token, (start, end) in places if token == tokenizer.unk_token_id))


def _token_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    return tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if texts else []
