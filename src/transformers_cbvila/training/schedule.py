"""Active objectives, hardness of ITM negatives and the like, as pure functions of the global step.

There is no state, so that a resumed run is in the right phase from its first step.
"""

import math
from collections.abc import Mapping

_RESTART_UNTIL = 0.9  # of burn-in: the last restarts must settle before MIM learns their indices


def as_steps(value: float, max_steps: int) -> int:
    """Returns a number of steps given as such, or as a share below 1 of all steps, at least one unless it is 0."""
    return _share_of(max_steps, value) if value < 1 else int(value)


def _share_of(max_steps: int, share: float) -> int:
    return max(1, round(share * max_steps)) if share > 0 else 0


def phases(align_steps: float, burn_in_steps: float, max_steps: int) -> tuple[int, int]:
    """Returns the steps at which alignment and burn-in end, the latter not before the former."""
    align = as_steps(align_steps, max_steps)
    return align, max(align, as_steps(burn_in_steps, max_steps))


def objective_weights(
    configured: Mapping[str, float],
    loss_phases: Mapping[str, str],
    step: int,
    burn_in_steps: int,
    mim_open: bool = True,
    mlm_from_start: bool = False,
    align_steps: int = 0,
) -> dict[str, float]:
    """Returns the loss weights at a global step (Sec. IV-C).

    Before `align_steps` only terms of phase `"align"` are on; from then on also those of `"start"`; after
    `burn_in_steps` all, those of `"stable"` once their gate is open. With `mlm_from_start` those of `"burn_in"` are on
    from the first step.
    """
    on = {"align"} | ({"burn_in"} if mlm_from_start else set())
    if step >= align_steps:
        on |= {"start"} | ({"burn_in"} if step >= burn_in_steps else set())
        on |= {"stable"} if mim_open and step >= burn_in_steps else set()
    return {name: weight if loss_phases[name] in on else 0.0 for name, weight in configured.items()}


def restart_steps(align_steps: int, burn_in_steps: int) -> range:
    """Returns the global steps at which unused codes restart: from alignment until shortly before burn-in ends.

    Not during alignment: no loss uses a code by then, and k-means replaces all of them when it ends.
    """
    return range(align_steps, math.ceil(align_steps + _RESTART_UNTIL * (burn_in_steps - align_steps)))


def latest_mim_step(align_steps: int, burn_in_steps: int, stability_window: int, max_steps: int) -> int:
    """Returns the step at which a gate that waits for stability opens at the latest.

    That is when burn-in, counted from the end of alignment, has lasted twice as long, and a whole window of stability
    was measured, or when half of the steps after burn-in have passed, if that is earlier.
    """
    wait = max(burn_in_steps - align_steps, stability_window)
    return burn_in_steps + min(wait, max(0, max_steps - burn_in_steps) // 2)


def mim_gate_open(
    step: int, burn_in_steps: int, threshold: float | None, stability: float | None, latest: int
) -> bool:
    """Whether MIM may begin at a global step: after burn-in, once indices are stable, or at the latest step.

    Args:
        step: The global step.
        burn_in_steps: The step at which burn-in ends.
        threshold: Stability that opens the gate; None opens it when burn-in ends.
        stability: What was measured, None before a whole window was measured.
        latest: See [`latest_mim_step`].
    """
    if step < burn_in_steps:
        return False
    stable = stability is not None and threshold is not None and stability >= threshold
    return threshold is None or stable or step >= latest


def negative_hardness(step: int, max_steps: int, window: tuple[float, float] | None) -> float | None:
    """Returns the sharpness of the ITM negatives, rising linearly from 0 to 1 in the window; None without one."""
    if window is None:
        return None
    start, end = hardening_steps(window, max_steps)
    return min(1.0, max(0.0, (step - start) / max(1, end - start)))


def hardening_steps(window: tuple[float, float], max_steps: int) -> tuple[int, int]:
    """Returns the steps of a window of two steps or two shares."""
    # Where the first bound is a share the second is one too: 1.0 is then the end of training, not its first step.
    shares = window[0] < 1 and window[1] <= 1
    start, end = (_share_of(max_steps, bound) if shares else int(bound) for bound in window)
    return start, end


def distillation_alpha(step: int, max_steps: int, alpha: float, ramp_steps: float) -> float:
    """Returns ALBEF's α at a step: linear from 0 to `alpha` in `ramp_steps` (below 1: a share of all steps)."""
    ramp = as_steps(ramp_steps, max_steps)
    return alpha * min(1.0, step / ramp) if ramp > 0 else alpha
