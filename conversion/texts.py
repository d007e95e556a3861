"""Finds a tokenizer that fits a converted model, and its special token ids."""

from collections.abc import Mapping
from typing import Any

from safe_loading import first_line
from transformers import AutoTokenizer

from transformers_cbvila.bundled import bundled_or_same

_SPECIAL = {"pad_token_id": "pad", "bos_token_id": "cls", "eos_token_id": "sep"}


def load_tokenizer(name: str) -> Any:
    """Loads a tokenizer from a folder, the Hub or a bundled checkpoint.

    Raises:
        ValueError: If there is none.
    """
    try:
        return AutoTokenizer.from_pretrained(bundled_or_same(name))
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"There is no tokenizer {name} ({first_line(error)}): give a folder with --tokenizer, or --no_processor."
        ) from error


def fitting_tokenizer(name: str | None, default: str, size: int) -> tuple[Any, str]:
    """Returns the requested tokenizer, or the default one if it is available and fits.

    Args:
        name: A folder or Hub id, or `None` for the default one.
        default: Folder or Hub id of the default tokenizer.
        size: How many word embeddings the model has.

    Returns:
        The tokenizer, or `None` with a note that says why there is none.

    Raises:
        ValueError: If the requested one cannot be loaded, or has another number of tokens.
    """
    try:
        tokenizer = load_tokenizer(name or default)
        if len(tokenizer) != size:
            raise ValueError(
                f"The checkpoint has {size} word embeddings and the tokenizer {name or default} {len(tokenizer)} "
                "tokens: give the one that the model was trained with as --tokenizer, or --no_processor."
            )
    except ValueError as error:
        if name is not None:
            raise
        return None, f"No processor beside the model. {error}"
    return tokenizer, ""


def token_ids(tokenizer: Any, given: Mapping[str, int] | None = None) -> dict[str, int]:
    """Returns token ids for the text configuration, of a tokenizer or of ALBEF's `{"pad": 0, "cls": ...}`."""
    if tokenizer is not None:
        found = {field: getattr(tokenizer, f"{name}_token_id") for field, name in _SPECIAL.items()}
    else:
        found = {field: (given or {}).get(name) for field, name in _SPECIAL.items()}
    return {field: value for field, value in found.items() if value is not None}
