"""Options for generation in the pipeline: checks and defaults."""

from typing import Any

from .messages_cbvila import shown
from .number_checks_cbvila import check_whole

_NEW_TOKENS = 20  # default max_new_tokens
# Options that the pipeline sets, with alternatives for messages.
_OWN_OPTIONS = {
    "num_return_sequences": "pass top_k=...",
    "return_dict_in_generate": "call model.generate(...) for its raw output",
    "output_logits": "call model.generate(...) for its raw output",
}


def check_top_k(top_k: Any) -> int:
    """Returns `top_k`, or raises a ValueError unless it is a positive whole number."""
    if not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1:
        raise ValueError(f"top_k must be a whole number of at least 1, got {shown(top_k)}")
    return top_k


def check_generate_kwargs(options: dict[str, Any], num_positions: int) -> dict[str, Any]:
    """Returns `generate_kwargs`, or raises a ValueError for options that the pipeline sets and for too many tokens."""
    if not isinstance(options, dict):
        raise ValueError(f"generate_kwargs={shown(options)} must be a dictionary, e.g. {{'max_new_tokens': 5}}")
    for name in _OWN_OPTIONS.keys() & options.keys():
        raise ValueError(f"generate_kwargs may not hold {name!r}: {_OWN_OPTIONS[name]}")
    for name, limit in (("max_new_tokens", num_positions), ("max_length", num_positions + 1)):
        if options.get(name) is None:
            continue
        check_whole(f"generate_kwargs: {name}", options[name])
        if options[name] > limit:
            raise ValueError(
                f"generate_kwargs has {name}={options[name]}, but the model knows {num_positions} positions: pass at "
                f"most {name}={limit}"
            )
    return options


def generation_options(given: dict[str, Any], top_k: int, num_positions: int, vocab_size: int) -> dict[str, Any]:
    """Returns all options of `model.generate`.

    Args:
        given: The checked `generate_kwargs` of the call.
        top_k: Number of answers per question, found by beam search if it is greater than 1 and nothing is sampled.
        num_positions: Number of positions of the model.
        vocab_size: Number of tokens of the model.

    Raises:
        ValueError: If there are more beams than tokens.
    """
    _check_beams(given, top_k, vocab_size)
    options = {**given, "num_return_sequences": top_k, "return_dict_in_generate": True, "output_logits": True}
    if not {"max_new_tokens", "max_length", "generation_config"} & given.keys():
        options["max_new_tokens"] = min(_NEW_TOKENS, num_positions)
    if top_k > 1 and not given.get("do_sample"):
        options["num_beams"] = max(top_k, given.get("num_beams") or 1)
    if (options.get("num_beams") or 1) > 1:
        # Beams are then compared by the probability that is returned as the score.
        options.setdefault("length_penalty", 0.0)
    return options


def _check_beams(given: dict[str, Any], top_k: int, vocab_size: int) -> None:
    """Raises a ValueError for more beams than tokens, which would need memory for the scores of all of them."""
    for name, number in (("top_k", top_k), ("generate_kwargs: num_beams", given.get("num_beams") or 1)):
        check_whole(name, number)
        if number > vocab_size:
            raise ValueError(
                f"{name}={number:,} is more than the {vocab_size:,} tokens of the vocabulary; answers beyond the "
                "first few tell nothing, so pass a small number, or rank a list with answers=[...]"
            )
