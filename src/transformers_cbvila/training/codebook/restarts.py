"""Whether the codes of a quantizer can be restarted, as the arguments say."""

from typing import Any

from ..arguments import CBViLATrainingArguments


def check_restarts(args: CBViLATrainingArguments, quantizer: Any) -> None:
    """Raises a ValueError if unused codes are to be restarted that are no moving averages."""
    if args.codebook_restart_threshold > 0 and not quantizer.can_restart:
        raise ValueError(
            f"codebook_restart_threshold={args.codebook_restart_threshold} is for codes that are moving averages; "
            f"here they are not ({quantizer.options}). Set it to 0: --codebook_restart_threshold 0."
        )
