"""Lengths and padding of rows of token ids."""

from typing import Any

from transformers.tokenization_utils_base import TruncationStrategy
from transformers.utils import PaddingStrategy


def is_truncation_on(truncation: Any) -> bool:
    """Returns whether an option `truncation` of tokenizers truncates texts; a ValueError if there is no such value."""
    if truncation is None or isinstance(truncation, bool):
        return bool(truncation)
    return TruncationStrategy(truncation) != TruncationStrategy.DO_NOT_TRUNCATE


def check_lengths(rows: list[list[int]], limit: int | None, name: str, way_out: str) -> None:
    """Raises a ValueError, which ends with `way_out`, for rows of more than `limit` token ids."""
    for index, row in enumerate(rows):
        if limit is not None and len(row) > limit:
            raise ValueError(
                f"{name} {index} has {len(row)} tokens with its special tokens, the limit is {limit}; {way_out}"
            )


def padded_lengths(rows: list[list[int]], padding: Any, limit: int | None, multiple: int | None) -> list[int]:
    """Returns the length of each row after padding.

    Args:
        rows: Token ids of each text.
        padding: An option `padding` of tokenizers.
        limit: The length for `"max_length"`.
        multiple: Rounds the length up to a multiple of this.

    Raises:
        ValueError: If there is no such option, or no limit for `"max_length"`.
    """
    lengths = [len(row) for row in rows]
    if padding is False or padding == PaddingStrategy.DO_NOT_PAD:
        return lengths
    strategy = PaddingStrategy.LONGEST if padding is True else PaddingStrategy(padding)
    target: int | None = max(lengths) if strategy == PaddingStrategy.LONGEST else limit
    if target is None:
        raise ValueError("padding='max_length' needs a limit, and the tokenizer sets none; pass max_length=...")
    return [-(-target // multiple) * multiple if multiple else target] * len(rows)


def pad(row: list[int], length: int, value: int) -> list[int]:
    """Pads a row with `value` on the right."""
    return row + [value] * (length - len(row))
