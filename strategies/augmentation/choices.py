"""Which pairs each method sends back: those that the filters keep, and the choices that they are compared with."""

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from cdcda_flower.seeding import derive_seed
from cdcda_flower.types import SyntheticPair

Pairs = Mapping[str, tuple[SyntheticPair, ...]]
"""Pairs by user."""


class Written(NamedTuple):
    """All pairs that the LLM wrote, and those of them that all filters keep."""

    pairs: Sequence[SyntheticPair]
    kept: Sequence[SyntheticPair]


def by_user(pairs: Iterable[SyntheticPair]) -> Pairs:
    """Returns the pairs of each user, in their order."""
    found: dict[str, list[SyntheticPair]] = {}
    for pair in pairs:
        found.setdefault(pair.provenance.user_id, []).append(pair)
    return {user_id: tuple(own) for user_id, own in sorted(found.items())}


def random_of_size(written: Written, *, seed: int) -> Pairs:
    """Returns for each user as many of all the pairs as the filters keep, drawn by seed: selection without a criterion.

    Of the same size user by user, so that what is compared is which pairs are kept and not how many.
    """
    kept = by_user(written.kept)
    return {
        user_id: _drawn(own, len(kept[user_id]), seed=derive_seed(seed, "random-selection", user_id))
        for user_id, own in by_user(written.pairs).items()
        if user_id in kept
    }


def _drawn(pairs: Sequence[SyntheticPair], count: int, *, seed: int) -> tuple[SyntheticPair, ...]:
    places = sorted(random.Random(seed).sample(range(len(pairs)), count))
    return tuple(pairs[place] for place in places)
