"""Warnings, when training begins, of codebook options that the length of the run leaves without effect."""

from typing import Any

from transformers import TrainerState
from transformers.utils import logging

from ..arguments import CBViLATrainingArguments
from ..schedule import hardening_steps, restart_steps

logger = logging.get_logger(__name__)


def warn_of_endless_burn_in(args: CBViLATrainingArguments, state: TrainerState, burn_in: int) -> None:
    """Warns if burn-in, which ends at step `burn_in`, lasts for the whole run."""
    if burn_in >= state.max_steps:
        logger.warning(
            f"burn_in_steps={args.burn_in_steps} (after align_steps={args.align_steps}) lasts for all of the "
            f"{state.max_steps} steps: MIM never begins, nor MLM unless mlm_from_start."
        )


def warn_of_frozen_codes(args: CBViLATrainingArguments, quantizer: Any) -> None:
    """Warns of options that have no effect on a frozen codebook."""
    given = {
        "codebook_refit": args.codebook_refit,
        "codebook_restart_threshold": args.codebook_restart_threshold > 0,
        "codebook_init": args.codebook_init and not quantizer.is_fitted,
    }
    ignored = [name for name, on in given.items() if on]
    if ignored:
        logger.warning(
            "The codebook is frozen (requires_grad_(False)): its codes do not change, and these options have no "
            f"effect: {', '.join(ignored)}."
            + ("" if quantizer.is_fitted else " It was never fitted: these codes are random.")
        )


def warn_of_no_restarts(args: CBViLATrainingArguments, align: int, burn_in: int) -> None:
    """Warns if codes can restart only after an alarm, as alignment and burn-in end at steps `align` and `burn_in`."""
    if args.codebook_restart_threshold == 0:
        return
    window = restart_steps(align, burn_in)
    # Codes are new at the first step and, with codebook_init, when alignment ends.
    grace = args.codebook_restart_grace if align == 0 or args.codebook_init else 0
    if len(window) < max(1, grace):
        logger.warning(
            f"codebook_restart_threshold={args.codebook_restart_threshold} restarts codes from the end of "
            f"alignment until shortly before burn-in ends; here these are {len(window)} steps (alignment ends at "
            f"step {align}, burn-in at {burn_in}), and new codes have {grace} steps of grace "
            "(codebook_restart_grace). Only after an alarm will codes restart: raise burn_in_steps, or lower "
            "codebook_restart_grace."
        )


def warn_of_hard_negatives(args: CBViLATrainingArguments, state: TrainerState, align: int) -> None:
    """Warns if negatives have fully hardened before ITM begins, at step `align`."""
    window = args.hardening_window()
    if window is None:
        return
    end = hardening_steps(window, state.max_steps)[1]
    if end <= align < state.max_steps:
        logger.warning(
            f"negative_hardening={args.negative_hardening!r} ends at step {end}, and ITM begins at step {align}, "
            f"when alignment ends (align_steps={args.align_steps:g}): its negatives are hard from the first one "
            "on. Let it end later."
        )
