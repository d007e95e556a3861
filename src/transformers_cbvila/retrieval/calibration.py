"""Scores of search as probabilities that an item matches its query, fitted where the truth is known.

A logistic regression (Platt, 1999) on the best candidates of queries. Of every second query the true ones are taken
away first: somebody who searches in a gallery does not know whether what he seeks is there.

Shapes: Q queries, k candidates of each, n pairs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .score_weighting import JudgedCandidates

_BEST = 5  # candidates of a query that count: probabilities shall be right where somebody looks
_STEPS, _TOLERANCE = 100, 1e-10  # of Newton's method


class Calibration(NamedTuple):
    """p = 1 / (1 + exp(-(slope · score + offset)))."""

    slope: float
    offset: float

    def probabilities(self, scores: Tensor) -> Tensor:
        """Returns the probabilities of scores, in their shape; 0 where a score is -inf."""
        if self.slope == 0:
            return torch.full_like(scores, torch.sigmoid(torch.tensor(self.offset)).item())
        return torch.sigmoid(self.slope * scores + self.offset)


class JudgedPairs(NamedTuple):
    """Scores (n,) of pairs of queries and candidates, and whether they match (n,) bool."""

    scores: Tensor
    relevant: Tensor


class CalibrationQuality(NamedTuple):
    """How good probabilities are on queries that they were not fitted to, half of which have no true candidate.

    Args:
        error: Expected calibration error of the best candidates' probabilities, in 15 bins.
        precision: Share of the best candidates with a probability of a half or more that match; 1 if there are none.
        answered: Share of the queries with a true candidate whose best one matches and has such a probability.
    """

    error: float
    precision: float
    answered: float


def fitted_calibration(pairs: JudgedPairs) -> Calibration | None:
    """Fits a logistic regression by Newton's method; `None` if no pair matches, or all do.

    Its targets are Platt's, (N₊ + 1) / (N₊ + 2) and 1 / (N₋ + 2), so that it is finite where a score parts all pairs.
    A slope below 0, of a score that says nothing, is 0.
    """
    scores, relevant = pairs.scores.double(), pairs.relevant
    positives, negatives = int(relevant.sum()), int((~relevant).sum())
    if not positives or not negatives:
        return None
    targets = torch.where(relevant, (positives + 1) / (positives + 2), 1 / (negatives + 2)).double()
    mean, deviation = scores.mean(), scores.std(correction=0).clamp_min(1e-12)
    features = torch.stack([(scores - mean) / deviation, torch.ones_like(scores)], dim=1)
    weights = torch.zeros(2, dtype=torch.float64)
    for _ in range(_STEPS):
        found = torch.sigmoid(features @ weights)
        gradient = features.T @ (found - targets)
        curvature = (features * (found * (1 - found)).unsqueeze(1)).T @ features
        step = torch.linalg.solve(curvature + 1e-9 * torch.eye(2, dtype=torch.float64), gradient)
        step = step * (4 / step.abs().max()).clamp(max=1.0)  # far from the solution a whole step would overshoot
        weights = weights - step
        if step.abs().max() < _TOLERANCE:
            break
    slope = float(weights[0] / deviation)
    if slope <= 0:
        share = targets.mean()
        return Calibration(0.0, float((share / (1 - share)).log()))
    return Calibration(slope, float(weights[1] - weights[0] * mean / deviation))


def best_pairs(candidates: Sequence[JudgedCandidates], best: int = _BEST) -> list[tuple[JudgedPairs, Tensor]]:
    """Returns the best candidates of each query by score, without the true ones of every second query.

    Args:
        candidates: Of one or more kinds of queries. Only `scores` and `relevant` are used.
        best: How many candidates of each query.

    Returns:
        For each kind the pairs (Q · best,), and whether a query (Q,) has a true candidate left.
    """
    found = []
    for kind in candidates:
        absent = torch.arange(len(kind.scores)) % 2 == 1
        scores = kind.scores.double().masked_fill(absent.unsqueeze(1) & kind.relevant, float("-inf"))
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        scores, relevant = scores[:, :best], kind.relevant.gather(1, order)[:, :best]
        # too few candidates: the worst that is left stands for those that were taken away
        worst = scores.masked_fill(scores.isinf(), float("inf")).amin(1, keepdim=True)
        known = worst.isfinite().squeeze(1)
        scores = torch.where(scores.isinf(), worst, scores)
        pairs = JudgedPairs(scores[known].flatten(), (relevant & ~absent.unsqueeze(1))[known].flatten())
        found.append((pairs, (relevant & ~absent.unsqueeze(1)).any(1)[known]))
    return found


def calibrate(candidates: Sequence[JudgedCandidates]) -> tuple[Calibration, CalibrationQuality] | None:
    """Fits a calibration to all queries, and measures it by two that were fitted to halves of them.

    Args:
        candidates: Of one or more kinds of queries, which count alike, with the scores that order them.

    Returns:
        The calibration and its quality; `None` if there are no matching pairs, or too few to measure.
    """
    halves = [torch.arange(len(kind.scores)) // 2 % 2 == 0 for kind in candidates]
    parts = [
        [
            JudgedCandidates(*(tensor[half if first else ~half] for tensor in kind))
            for kind, half in zip(candidates, halves, strict=True)
        ]
        for first in (True, False)
    ]
    whole, first, second = (fitted_calibration(_joined(part)) for part in (candidates, *parts))
    if whole is None or first is None or second is None:
        return None
    best, true, has_answer = [], [], []
    for part, other in zip(parts, (second, first), strict=True):
        for pairs, answerable in best_pairs(part, 1):
            best.append(other.probabilities(pairs.scores))
            true.append(pairs.relevant)
            has_answer.append(answerable)
    return whole, _quality(torch.cat(best), torch.cat(true), torch.cat(has_answer))


def calibration_error(probabilities: Tensor, relevant: Tensor, bins: int = 15) -> float:
    """Returns the expected calibration error: the mean distance of probabilities (n,) from shares, bin by bin."""
    numbers = (probabilities * bins).long().clamp(max=bins - 1)
    counts = numbers.bincount(minlength=bins)
    distance = numbers.bincount(probabilities.double() - relevant.double(), minlength=bins).abs()
    return float(distance.sum() / counts.sum())


def _joined(candidates: Sequence[JudgedCandidates]) -> JudgedPairs:
    pairs = [found for found, _ in best_pairs(candidates)]
    return JudgedPairs(torch.cat([p.scores for p in pairs]), torch.cat([p.relevant for p in pairs]))


def _quality(probabilities: Tensor, relevant: Tensor, answerable: Tensor) -> CalibrationQuality:
    shown = probabilities >= 0.5
    return CalibrationQuality(
        calibration_error(probabilities, relevant),
        float(relevant[shown].double().mean()) if shown.any() else 1.0,
        float((shown & relevant)[answerable].double().mean()) if answerable.any() else 0.0,
    )
