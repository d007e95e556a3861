"""A warning if a tokenizer does not know the texts that a model is trained or measured on."""

from collections.abc import Iterable
from itertools import islice
from typing import Any

from transformers.utils import logging

from ..model.messages_cbvila import shown
from ..model.unknown_tokens_cbvila import unknown_token_share

logger = logging.get_logger(__name__)

_WARNED_FROM = 0.1  # share of unknown tokens
_READ = 10_000  # texts that are checked


def warn_of_unknown_tokens(tokenizer: Any, texts: Iterable[str], what: str = "training texts") -> None:
    """Warns if a tenth or more of the tokens in the first 10,000 texts are unknown.

    Args:
        tokenizer: The model's tokenizer.
        texts: The texts.
        what: What a message calls them.
    """
    first = list(islice(texts, _READ))
    share = unknown_token_share(tokenizer, first)
    if share >= _WARNED_FROM:
        worst = max(first, key=lambda text: unknown_token_share(tokenizer, [text]))
        logger.warning(
            f"The tokenizer does not know {share:.0%} of the tokens of the {what}, such as {shown(worst)}: to the "
            "model they are all [UNK], from which nothing can be learned. Start from a model whose "
            "tokenizer knows the language, or pretrain one without --model: its vocabulary is made of the captions, "
            "or is that of --tokenizer."
        )
