"""Texts as inputs of exported models, and answers as texts, with `tokenizers` alone.

Shapes: B texts, L tokens.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from ..model.messages_cbvila import shown

TOKENIZER_FILE = "tokenizer.json"


class Texts:
    """Encodes texts as [`CBViLAProcessor`] does, and decodes answers.

    Args:
        folder: Where tokenizer.json is.
        options: The entry `texts` of export.json.
    """

    def __init__(self, folder: Path, options: Mapping[str, Any]) -> None:
        self._tokenizer, self._options = Tokenizer.from_file(str(folder / TOKENIZER_FILE)), options
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def encode(self, texts: Sequence[str], max_length: int | None = None) -> dict[str, np.ndarray]:
        """Returns `input_ids` and `attention_mask` (B, L), padded on the right.

        Args:
            texts: B texts.
            max_length: Longest text in tokens: longer ones are cut. Without, they are an error.

        Raises:
            ValueError: If a text is not a string, is empty, or is longer than the model takes.
        """
        rows = [self._row(text, max_length) for text in texts]
        ids = np.full((len(rows), max(map(len, rows))), self._options["pad_token_id"], dtype=np.int64)
        mask = np.zeros_like(ids)
        for number, row in enumerate(rows):
            ids[number, : len(row)], mask[number, : len(row)] = row, 1
        return {"input_ids": ids, "attention_mask": mask}

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of an answer's tokens, up to the end token."""
        end = self._options["answer_end_token_id"]
        kept = list(ids)
        kept = kept[: kept.index(end)] if end in kept else kept
        return self._tokenizer.decode(kept, skip_special_tokens=True).strip()

    def _row(self, text: str, max_length: int | None) -> list[int]:
        if not isinstance(text, str):
            raise ValueError(f"a text must be a string, got a {type(text).__name__}, {shown(text)}")
        tokens = self._tokenizer.encode(text, add_special_tokens=False).ids
        if not tokens:
            raise ValueError(f"the text {shown(text)} is empty; it needs at least one word")
        options = self._options
        end = [options["sep_token_id"]] if options["add_sep_token"] else []
        limit = options["max_length"] if max_length is None else min(max_length, options["max_length"])
        length, room = len(tokens) + 1 + len(end), limit - 1 - len(end)
        if max_length is None and length > limit:
            raise ValueError(f"the text {shown(text)} has {length} tokens, and the model takes {limit}; shorten it")
        if room < 1:
            raise ValueError(f"max_length={max_length} leaves no room for a token of the text; take a larger one")
        return [options["cls_token_id"], *tokens[:room], *end]
