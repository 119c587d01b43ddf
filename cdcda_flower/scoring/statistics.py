"""Paired statistics over users: the interval of a mean difference, and who wins."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95
# Resampled indices held at once: 10 000 resamples of 100 users fit in one block, of a million users in many.
_BLOCK = 4_000_000
# Means of the same answers can differ in the last bits; that is no win.
_TIE = 1e-12


class Interval(NamedTuple):
    """A mean over users with the bounds of its confidence interval."""

    mean: float
    low: float
    high: float


class Tally(NamedTuple):
    """Users for whom the second method is better, equal, worse than the first."""

    wins: int
    ties: int
    losses: int


def bootstrap_mean(values: Sequence[float], *, seed: int, resamples: int = RESAMPLES, level: float = LEVEL) -> Interval:
    """Returns the mean of one value per user with its percentile bootstrap interval over users (Efron 1979).

    For a paired comparison the values are per-user differences: users are resampled, both methods of a user together.
    """
    if not values:
        raise ValueError("a mean over users needs at least one user")
    sample = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    rows = max(1, _BLOCK // len(sample))
    means = [
        sample[rng.integers(len(sample), size=(min(rows, resamples - start), len(sample)))].mean(axis=1)
        for start in range(0, resamples, rows)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(sample.mean()), float(low), float(high))


def tally(first: Sequence[float], second: Sequence[float], *, better: int) -> Tally:
    """Returns how the second method does against the first, user by user; `better` is -1 where lower values are better."""
    gains = [better * (b - a) for a, b in zip(first, second, strict=True)]
    wins = sum(gain > _TIE for gain in gains)
    losses = sum(gain < -_TIE for gain in gains)
    return Tally(wins, len(gains) - wins - losses, losses)
