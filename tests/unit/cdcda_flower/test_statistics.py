"""Paired statistics over users."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wilcoxon

from cdcda_flower.statistics import Interval, bootstrap_means, holm, signed_rank, tally

FLOATS = st.floats(-10, 10)


def _bootstrap(values: list[float], *, seed: int, resamples: int = 10_000) -> Interval:
    [interval] = bootstrap_means([values], seed=seed, resamples=resamples)
    return interval


def _by_definition(values: list[float], *, seed: int, resamples: int) -> tuple[float, float]:
    """Draws the users again, one resample after the other."""
    rng = np.random.default_rng(seed)
    means = [np.mean([values[user] for user in rng.integers(len(values), size=len(values))]) for _ in range(resamples)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def test_columns_together_have_the_intervals_that_each_has_alone_and_by_definition() -> None:
    rng = np.random.default_rng(7)
    columns = [list(rng.normal(size=users)) for users in (20, 7, 20, 1)]
    together = bootstrap_means(columns, seed=3, resamples=400)
    for column, interval in zip(columns, together, strict=True):
        assert interval == pytest.approx(_bootstrap(column, seed=3, resamples=400), abs=1e-10)
        assert interval[1:] == pytest.approx(_by_definition(column, seed=3, resamples=400), abs=1e-10)
        assert interval.mean == pytest.approx(np.mean(column))


def test_the_interval_of_a_normal_sample_is_that_of_the_t_distribution() -> None:
    # 400 standard normal values: half-width 1.96 / sqrt(400) = 0.098, by any textbook.
    sample = np.random.default_rng(3).standard_normal(400)
    interval = _bootstrap(list(sample), seed=1)
    assert interval.mean == pytest.approx(sample.mean())
    assert (interval.high - interval.low) / 2 == pytest.approx(0.098, rel=0.1)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        interval = _bootstrap(list(rng.normal(0.3, 1.0, size=50)), seed=seed, resamples=1000)
        covered += interval.low <= 0.3 <= interval.high
    assert 0.89 <= covered / 200 <= 0.99


@given(st.lists(FLOATS, min_size=1, max_size=20), st.integers(0, 99))
def test_the_same_seed_gives_the_same_interval_around_the_mean(values: list[float], seed: int) -> None:
    one = _bootstrap(values, seed=seed, resamples=200)
    assert one == _bootstrap(values, seed=seed, resamples=200)
    assert min(values) - 1e-9 <= one.low <= one.high <= max(values) + 1e-9


def test_users_that_all_gain_the_same_leave_no_doubt() -> None:
    assert _bootstrap([0.5] * 30, seed=0) == (0.5, 0.5, 0.5)


def test_many_users_are_resampled_in_blocks_that_give_the_same_kind_of_interval() -> None:
    sample = list(np.random.default_rng(5).normal(size=6000))
    interval = _bootstrap(sample, seed=0, resamples=1500)
    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 / np.sqrt(6000), rel=0.15)


def test_no_user_has_no_mean() -> None:
    with pytest.raises(ValueError, match="at least one user"):
        _bootstrap([], seed=0)


def test_wins_follow_the_metric_direction() -> None:
    assert tally([1.0, 2.0, 3.0], [2.0, 2.0, 1.0], better=1) == (1, 1, 1)
    assert tally([1.0, 2.0, 3.0], [0.5, 2.0, 2.0], better=-1) == (2, 1, 0)


def test_rounding_is_no_win() -> None:
    assert tally([0.1 + 0.2], [0.3], better=1) == (0, 1, 0)


@given(st.lists(st.tuples(FLOATS, FLOATS), max_size=20))
def test_a_win_is_the_other_side_of_a_loss(users: list[tuple[float, float]]) -> None:
    first, second = [a for a, _ in users], [b for _, b in users]
    forth, back = tally(first, second, better=1), tally(second, first, better=1)
    assert (forth.wins, forth.ties, forth.losses) == (back.losses, back.ties, back.wins)
    assert sum(forth) == len(users)


def test_five_users_who_all_gain_have_one_chance_in_sixteen() -> None:
    # Of the 2^5 = 32 assignments of signs two are as extreme as this one: p = 2 / 32.
    assert signed_rank([0.0] * 5, [1.0, 2.0, 3.0, 4.0, 5.0], better=1) == pytest.approx((0.0625, 1.0))


def test_the_effect_is_the_balance_of_ranks() -> None:
    # Gains 1, 2, 3, -4 have ranks 1 to 4: (1 + 2 + 3 - 4) / 10.
    assert signed_rank([0.0] * 4, [1.0, 2.0, 3.0, -4.0], better=1).effect == pytest.approx(0.2)
    assert signed_rank([0.0] * 4, [1.0, 2.0, 3.0, -4.0], better=-1).effect == pytest.approx(-0.2)


@pytest.mark.parametrize("gains", [[1, 1, -1, 2, 3], [-2, 2, 2, 5], [1, 1, 1], [3, -1, 2, -1, 1, 1, 4, -4]])
def test_few_users_with_equal_differences_have_scipys_exact_p(gains: list[int]) -> None:
    expected = wilcoxon([float(gain) for gain in gains]).pvalue
    assert signed_rank([0.0] * len(gains), [float(gain) for gain in gains], better=1).p == pytest.approx(expected)


@pytest.mark.parametrize("users", [8, 13, 14, 40, 100])
def test_p_is_scipys(users: int) -> None:
    rng = np.random.default_rng(users)
    first = rng.integers(0, 4, size=users).astype(float)
    second = first + rng.normal(0.3, 1.0, size=users)
    expected = wilcoxon(second, first).pvalue
    assert signed_rank(list(first), list(second), better=1).p == pytest.approx(expected)
    assert signed_rank(list(first), list(second), better=-1).p == pytest.approx(expected)


def test_users_with_equal_values_are_left_out() -> None:
    first, second = [1.0] * 10, [1.0] * 4 + [2.0, 3.0, 4.0, 5.0, 6.0, 0.5]
    assert signed_rank(first, second, better=1) == signed_rank(first[4:], second[4:], better=1)
    assert signed_rank(first, second, better=1).p == pytest.approx(wilcoxon([1.0, 2.0, 3.0, 4.0, 5.0, -0.5]).pvalue)


def test_differences_that_rounding_tells_apart_share_a_rank() -> None:
    # 0.3 - 0.2 and 0.2 - 0.1 differ in the last bit: two equal ranks of opposite sign leave nothing.
    assert signed_rank([0.2, 0.2], [0.3, 0.1], better=1).effect == 0


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0, 3.0]])
def test_no_difference_is_no_evidence(values: list[float]) -> None:
    assert signed_rank(values, values, better=1) == (1.0, 0.0)


def test_one_user_proves_nothing() -> None:
    assert signed_rank([0.0], [5.0], better=1) == (1.0, 1.0)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=20))
def test_the_other_order_has_the_same_p_and_the_opposite_effect(users: list[tuple[int, int]]) -> None:
    first, second = [float(a) for a, _ in users], [float(b) for _, b in users]
    forth, back = signed_rank(first, second, better=1), signed_rank(second, first, better=1)
    assert 0 <= forth.p <= 1
    assert (forth.p, forth.effect) == pytest.approx((back.p, -back.effect))


def test_holm_by_hand() -> None:
    # Sorted: 0.005 * 4 = 0.02; 0.01 * 3 = 0.03; 0.03 * 2 = 0.06; 0.04 * 1 = 0.04, raised to its neighbour's 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([0.6, 0.7]) == (1.0, 1.0)
    assert holm([]) == ()


@given(st.lists(st.floats(0, 1), max_size=10))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(values: list[float]) -> None:
    adjusted = holm(values)
    assert all(p <= a <= 1 for p, a in zip(values, adjusted, strict=True))
    assert [a for _, a in sorted(zip(values, adjusted, strict=True))] == sorted(adjusted)
