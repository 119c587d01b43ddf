"""The most informative examples are as far apart as they can be found, and none is chosen twice."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cdcda_flower.types import Example, UserHistory
from clients.sharing.diverse import DiverseShare, farthest_first
from clients.sharing.policies import choose
from lamp_folder import config

points = st.lists(st.tuples(*[st.integers(-4, 4)] * 3), min_size=1, max_size=7)


def _unit(rows: Sequence[tuple[int, ...]]) -> NDArray[np.float32]:
    vectors = np.array(rows, np.float32) + np.float32(0.1)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def _radius(vectors: NDArray[np.float32], chosen: Sequence[int]) -> float:
    """How far the vector lies that is farthest from its nearest chosen one."""
    return float(max(np.linalg.norm(vectors[list(chosen)] - one, axis=1).min() for one in vectors))


@given(rows=points, count=st.integers(1, 7))
def test_no_vector_is_farther_from_a_chosen_one_than_twice_the_best_that_anybody_can_choose(
    rows: list[tuple[int, ...]], count: int
) -> None:
    vectors = _unit(rows)
    chosen = farthest_first(vectors, count)
    assert len(set(chosen)) == len(chosen) == min(count, len(rows))
    best = min(_radius(vectors, places) for places in combinations(range(len(rows)), len(chosen)))
    assert _radius(vectors, chosen) <= 2 * best + 1e-6


@given(rows=points, few=st.integers(0, 7), many=st.integers(0, 7))
def test_more_begin_with_fewer(rows: list[tuple[int, ...]], few: int, many: int) -> None:
    few, many = sorted((few, many))
    assert farthest_first(_unit(rows), many)[:few] == farthest_first(_unit(rows), few)


def test_nothing_of_nothing() -> None:
    assert farthest_first(np.zeros((0, 3), np.float32), 2) == []


@given(rows=points, count=st.integers(0, 9))
def test_exactly_as_many_are_shared_as_the_count_says_in_the_historys_order(
    rows: list[tuple[int, ...]], count: int
) -> None:
    history = [Example(id=str(place), query=f"{row}", response="y") for place, row in enumerate(rows)]
    vectors = dict(zip((e.query for e in history), _unit(rows), strict=True))
    policy = DiverseShare(
        count=lambda size: min(count, size),
        text=lambda example: example.query,
        embed=lambda texts: np.array([vectors[text] for text in texts]),
    )
    chosen = list(policy.select(history, seed=1))
    assert len(chosen) == min(count, len(rows))
    assert chosen == [example for example in history if example in chosen]


def test_meaning_decides_and_not_words() -> None:
    """By the real encoder: of three topics, each told three times in other words, one example each."""
    texts = (
        "The cat sleeps on the sofa.",
        "A kitten is napping on the couch.",
        "On the settee a small cat dozes.",
        "Shares of the bank fell sharply today.",
        "The stock price of the lender dropped.",
        "Investors sold the bank's stock.",
        "She baked bread with rye flour.",
        "He made a loaf from rye.",
        "The baker's rye bread is fresh.",
    )
    history = UserHistory(
        user_id="u",
        examples=tuple(Example(id=str(n), query="", response=text) for n, text in enumerate(texts)),
        queries=(),
    )
    chosen = choose(config(share_policy="diverse", share_items=3, task="lamp-7"), history)
    assert sorted(int(example.id) // 3 for example in chosen) == [0, 1, 2]
    third = choose(config(share_policy="diverse", share_ratio=1 / 3, task="lamp-7"), history)
    assert third == chosen
