"""How much of a text the tokenizer does not know: a model reads all unknown words as the same one, [UNK]."""

import warnings
from collections.abc import Sequence
from typing import Any

from .messages_cbvila import shown


def unknown_token_share(tokenizer: Any, texts: Sequence[str]) -> float:
    """The share of tokens that stand for something unknown, 0 to 1, among the tokens of all texts.

    Args:
        tokenizer: one of transformers' tokenizers; one without an unknown token (a byte-level one) knows everything.
        texts: the texts; special tokens that the tokenizer would add are not counted.

    Returns:
        The share; 0.0 if there is no token.
    """
    rows = _token_ids(tokenizer, texts)
    return sum(row.count(tokenizer.unk_token_id) for row in rows) / max(1, sum(map(len, rows)))


def warn_of_unknown_texts(tokenizer: Any, texts: Sequence[str], kind: str, stacklevel: int = 2) -> bool:
    """Warn, once, if some of the texts consist of unknown tokens alone: a model cannot tell such texts apart.

    Args:
        tokenizer: as of `unknown_token_share`.
        texts: the texts.
        kind: what they are, in the plural: "questions".
        stacklevel: as of `warnings.warn`: 2 shows the line that calls this function.

    Returns:
        Whether there were such texts.
    """
    unknown = {tokenizer.unk_token_id}
    unread = [text for text, row in zip(texts, _token_ids(tokenizer, texts), strict=True) if set(row) == unknown]
    if unread:
        warnings.warn(
            f"The tokenizer knows nothing of {len(unread)} of {len(texts)} {kind}, e.g. {shown(unread[0])}: to the "
            "model all of them are the same. Use a model whose tokenizer knows the language.",
            stacklevel=stacklevel,
        )
    return bool(unread)


def _token_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    return tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if texts else []
