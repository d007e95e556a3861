"""Consistency of visual reasoning, as a pure function."""

from collections import defaultdict
from collections.abc import Hashable, Sequence


def consistency(correct: Sequence[bool], groups: Sequence[Hashable]) -> float:
    """Returns the share of groups, 0 to 1, without an error: NLVR2's consistency, where a group is a sentence's pairs.

    Args:
        correct: Whether each prediction is correct.
        groups: The group of each prediction.

    Raises:
        ValueError: If there are no predictions, or the sequences differ in length.
    """
    if len(correct) != len(groups) or len(correct) == 0:
        raise ValueError(f"consistency needs a group for each row: got {len(correct)} row(s), {len(groups)} group(s)")
    flawless: dict[Hashable, bool] = defaultdict(lambda: True)
    for right, group in zip(correct, groups, strict=True):
        flawless[group] &= bool(right)
    return sum(flawless.values()) / len(flawless)
