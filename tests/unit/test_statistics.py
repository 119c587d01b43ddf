"""Paired statistics over users."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdcda_flower.scoring.statistics import bootstrap_mean, tally

FLOATS = st.floats(-10, 10)


def test_the_interval_of_a_normal_sample_is_that_of_the_t_distribution() -> None:
    # 400 standard normal values: half-width 1.96 / sqrt(400) = 0.098, by any textbook.
    sample = np.random.default_rng(3).standard_normal(400)
    interval = bootstrap_mean(list(sample), seed=1)
    assert interval.mean == pytest.approx(sample.mean())
    assert (interval.high - interval.low) / 2 == pytest.approx(0.098, rel=0.1)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        interval = bootstrap_mean(list(rng.normal(0.3, 1.0, size=50)), seed=seed, resamples=1000)
        covered += interval.low <= 0.3 <= interval.high
    assert 0.89 <= covered / 200 <= 0.99


@given(st.lists(FLOATS, min_size=1, max_size=20), st.integers(0, 99))
def test_the_same_seed_gives_the_same_interval_around_the_mean(values: list[float], seed: int) -> None:
    one = bootstrap_mean(values, seed=seed, resamples=200)
    assert one == bootstrap_mean(values, seed=seed, resamples=200)
    assert min(values) - 1e-9 <= one.low <= one.high <= max(values) + 1e-9


def test_users_that_all_gain_the_same_leave_no_doubt() -> None:
    assert bootstrap_mean([0.5] * 30, seed=0) == (0.5, 0.5, 0.5)


def test_many_users_are_resampled_in_blocks_that_give_the_same_kind_of_interval() -> None:
    sample = list(np.random.default_rng(5).normal(size=6000))
    interval = bootstrap_mean(sample, seed=0, resamples=1500)
    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 / np.sqrt(6000), rel=0.15)


def test_no_user_has_no_mean() -> None:
    with pytest.raises(ValueError, match="at least one user"):
        bootstrap_mean([], seed=0)


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
