"""The tokenizer beside a converted model: found, of the right size, and with the ids that the model is told."""

from collections.abc import Mapping
from typing import Any

from safe_loading import first_line
from transformers import AutoTokenizer

_SPECIAL = {"pad_token_id": "pad", "bos_token_id": "cls", "eos_token_id": "sep"}


def load_tokenizer(name: str) -> Any:
    """A tokenizer of a folder or the Hub.

    Raises:
        ValueError: If there is none.
    """
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"There is no tokenizer {name} ({first_line(error)}): give a folder with --tokenizer, or --no_processor."
        ) from error


def check_vocabulary(tokenizer: Any, name: str, size: int) -> None:
    """Raises a ValueError if the tokenizer has another number of tokens than the model has word embeddings."""
    if tokenizer is not None and len(tokenizer) != size:
        raise ValueError(
            f"The checkpoint has {size} word embeddings and the tokenizer {name} {len(tokenizer)} tokens: give the "
            "one that the model was trained with as --tokenizer, or --no_processor."
        )


def token_ids(tokenizer: Any, given: Mapping[str, int] | None = None) -> dict[str, int]:
    """Ids for the text configuration, from the tokenizer, or from ALBEF's configuration `{"pad": 0, "cls": ...}`."""
    if tokenizer is not None:
        found = {field: getattr(tokenizer, f"{name}_token_id") for field, name in _SPECIAL.items()}
    else:
        found = {field: (given or {}).get(name) for field, name in _SPECIAL.items()}
    return {field: value for field, value in found.items() if value is not None}
