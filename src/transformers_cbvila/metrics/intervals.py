"""Confidence intervals of an accuracy, of a mean, and of a statistic that is no mean."""

from math import sqrt

import numpy as np

_Z_95 = 1.959964
_T_95 = 2.093  # of Student's distribution, for 20 folds


def wilson_interval(accuracy: float, n: int) -> tuple[float, float]:
    """Returns the 95 % Wilson score interval of an accuracy.

    Unlike the normal approximation it stays within 0 and 1 and has a positive width even at 100 %.

    Args:
        accuracy: Share of correct answers, 0 to 1.
        n: Number of answers.

    Returns:
        Lower and upper end, 0 to 1.

    Raises:
        ValueError: If `accuracy` is outside 0 to 1, or `n` is not positive.
    """
    if not 0 <= accuracy <= 1 or n <= 0:
        raise ValueError(f"an interval needs an accuracy from 0 to 1 of at least one answer, got {accuracy} of {n}")
    spread = _Z_95**2 / n
    center = (accuracy + spread / 2) / (1 + spread)
    half_width = sqrt(spread * (accuracy * (1 - accuracy) + spread / 4)) / (1 + spread)
    # At 0 and 1 one end equals the accuracy; rounding must not push it outside the unit interval.
    return max(0.0, center - half_width), min(1.0, center + half_width)


def bootstrap_interval(
    values: np.ndarray, seed: int, draws: int = 2000, groups: np.ndarray | None = None
) -> tuple[float, float]:
    """Returns the 95 % percentile bootstrap interval of a mean.

    Args:
        values: (M,) the values.
        seed: Seed of the resampling.
        draws: Number of resamples.
        groups: (M,) the group of each value, such as its image. Values of one group are not independent, so that whole
            groups are resampled. By default every value is a group.

    Returns:
        Lower and upper end.
    """
    generator = np.random.default_rng(seed)
    sums, sizes = np.asarray(values, dtype=float), np.ones(len(values))
    if groups is not None:
        members = np.unique(groups, return_inverse=True)[1]
        sums, sizes = np.bincount(members, weights=sums), np.bincount(members).astype(float)
    means = []
    for _ in range(draws):
        chosen = generator.integers(len(sums), size=len(sums))
        means.append(sums[chosen].sum() / sizes[chosen].sum())
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def jackknife_interval(value: float, without: np.ndarray) -> tuple[float, float]:
    """Returns the 95 % jackknife interval of a statistic that grows by chance with few data, as entropies do.

    A bootstrap would be biased: resampled data have fewer distinct rows.

    Args:
        value: The statistic of all data.
        without: (20,) the statistic without each of 20 folds of the data.

    Returns:
        Lower and upper end.
    """
    folds = len(without)
    error = sqrt((folds - 1) / folds * float(np.square(without - without.mean()).sum()))
    return value - _T_95 * error, value + _T_95 * error


def mean_with_interval(name: str, values: np.ndarray, seed: int, groups: np.ndarray | None = None) -> dict[str, float]:
    """Returns the mean of values and its 95 % bootstrap interval, as `NAME`, `NAME_low` and `NAME_high`.

    Args:
        name: What the mean is called.
        values: (M,) the values.
        seed: Seed of the resampling.
        groups: As of [`bootstrap_interval`].
    """
    low, high = bootstrap_interval(values, seed, groups=groups)
    return {name: float(np.mean(values)), f"{name}_low": low, f"{name}_high": high}
