"""Paired statistics over users: the interval of a mean difference, who wins, a rank test and its correction."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cdcda_flower.seeding import derive_seed

FloatArray = NDArray[np.float64]

RESAMPLES = 10_000
LEVEL = 0.95
# With fewer people no rank test can give p < 0.05, and an interval can exclude 0 by chance alone.
LEAST_PEOPLE = 6
# Resampled indices held at once: 10 000 resamples of 100 users fit in one block, which fits in a cache.
_BLOCK = 1_000_000
# Means of the same answers can differ in the last bits; that is no win, and no difference between two ranks.
_DECIMALS = 11
# Up to so many users all assignments of signs are gone through, as in scipy's wilcoxon with ties.
_ENUMERATED = 13


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


class SignedRank(NamedTuple):
    """Two-sided p of the hypothesis that neither method is better, and the effect's size.

    `effect` is the matched-pairs rank-biserial correlation (Kerby 2014): the ranks of the users whom the second method
    serves better, minus the others', over all ranks; 1 where every user gains, -1 where every user loses.
    """

    p: float
    effect: float


def bootstrap_means(
    columns: Sequence[Sequence[float]], *, seed: int, resamples: int = RESAMPLES, level: float = LEVEL
) -> list[Interval]:
    """Returns each column's mean of one value per user with its percentile bootstrap interval over users (Efron 1979).

    For a paired comparison the values are per-user differences: users are resampled, both methods of a user together. Columns
    of equally many users share their resamples, which are drawn once: ten thousand users take a second, not one a column.
    """
    if not all(map(len, columns)):
        raise ValueError("a mean over users needs at least one user")
    found: dict[int, Interval] = {}
    for users in sorted({len(column) for column in columns}):
        places = [place for place, column in enumerate(columns) if len(column) == users]
        sample = np.asarray([columns[place] for place in places], dtype=np.float64).T
        means = np.concatenate(list(_resampled(sample, seed, resamples)))
        # A bound that is 0 but for its last bits is 0: whether an interval holds 0 is what readers look for.
        low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0).round(_DECIMALS)
        for column, place in enumerate(places):
            found[place] = Interval(float(sample[:, column].mean()), float(low[column]), float(high[column]))
    return [found[place] for place in range(len(columns))]


def _resampled(sample: FloatArray, seed: int, resamples: int) -> Iterator[FloatArray]:
    """Yields the columns' means (resamples, columns) over users drawn again, for a sample of (users, columns)."""
    users = len(sample)
    rng = np.random.default_rng(seed)
    rows = max(1, _BLOCK // users)
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        # How often each user was drawn: one product then serves all columns. 32 bits draw the same users as 64, faster.
        drawn = rng.integers(users, size=(size, users), dtype=np.int32)
        counts = np.empty((size, users))
        for place, row in enumerate(drawn):
            counts[place] = np.bincount(row, minlength=users)
        yield counts @ sample / users


def intervals_over_users(columns: Sequence[Sequence[float]]) -> list[Interval]:
    """Returns `bootstrap_means` with the same resamples wherever so many users are compared.

    So a comparison has one interval in all reports, and that of a - b mirrors that of b - a.
    """
    return bootstrap_means(columns, seed=derive_seed(0, "bootstrap"))


def interval_over_users(values: Sequence[float]) -> Interval:
    """Returns one column's interval."""
    [interval] = intervals_over_users([values])
    return interval


def tally(first: Sequence[float], second: Sequence[float], *, better: int) -> Tally:
    """Returns how the second method does against the first, user by user; `better` is -1 where lower values are better."""
    gains = _gains(first, second, better)
    wins, losses = int((gains > 0).sum()), int((gains < 0).sum())
    return Tally(wins, len(gains) - wins - losses, losses)


def signed_rank(first: Sequence[float], second: Sequence[float], *, better: int) -> SignedRank:
    """Returns Wilcoxon's signed-rank test of one value per user under two methods (Wilcoxon 1945), as scipy computes it.

    Users with equal values are left out, as Wilcoxon did. p is exact for up to 50 other users whose differences all
    differ in size, and for up to 13 in any case; else it is the normal approximation with the correction for ties.
    No difference at all is p = 1 and effect 0: every assignment of signs gives the same sum.
    """
    # scipy.stats takes half a second to import, which every other command would pay as well.
    from scipy.stats import permutation_test, rankdata, wilcoxon

    gains = _gains(first, second, better)
    gains = gains[gains != 0]
    if not len(gains):
        return SignedRank(1.0, 0.0)
    ranks = rankdata(np.abs(gains))
    signed = ranks * np.sign(gains)
    effect = float(signed.sum() / ranks.sum())
    if len(gains) == 1:
        return SignedRank(1.0, effect)
    if len(gains) > _ENUMERATED:
        return SignedRank(float(wilcoxon(gains, zero_method="wilcox", alternative="two-sided").pvalue), effect)
    # The same p as wilcoxon's, which takes seconds for 13 users: it ranks again for every assignment of signs.
    test = permutation_test((signed,), np.sum, permutation_type="samples", vectorized=True, n_resamples=2**_ENUMERATED)
    return SignedRank(float(test.pvalue), effect)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Returns Holm's adjusted p values of one family of tests, in the order given (Holm 1979; scipy has no such function).

    The i-th smallest of m is multiplied by m - i + 1, is at least its smaller neighbour's, and at most 1.
    """
    adjusted, greatest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        greatest = max(greatest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = greatest
    return tuple(adjusted)


def _gains(first: Sequence[float], second: Sequence[float], better: int) -> FloatArray:
    before, after = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    return (better * (after - before)).round(_DECIMALS)
