"""The share policies: which examples of its history a device lets go (the paper's I_u).

A policy of your own is a class with `name` and `select`, found by entry point (`cdcda_flower.share_policies`) or as
`module:Class`; docs/how-to/share-policy.md shows one.
"""

import random
from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from types import MappingProxyType
from typing import Protocol

from cdcda_flower.config import RunConfig
from cdcda_flower.types import Example


class SharePolicy(Protocol):
    """Chooses from one user's history; sees nobody else's and keeps nothing between users."""

    name: str

    def select(self, history: Sequence[Example], *, seed: int) -> Sequence[Example]:
        """Returns a subset of `history` (oldest first) as it is: no example twice, none changed, none of another user."""
        ...


def _count(ratio: float, size: int) -> int:
    # As the ratio is written: 0.7 * 45 is less than 31.5 in binary.
    return int((Decimal(str(ratio)) * size).quantize(Decimal(1), ROUND_HALF_UP))


class RatioShare:
    """The paper's: a share of the history, drawn by the user's seed."""

    name = "ratio"

    def __init__(self, *, ratio: float) -> None:
        self._ratio = ratio

    def select(self, history: Sequence[Example], *, seed: int) -> Sequence[Example]:
        """Returns the drawn examples in the order of the history.

        A larger ratio shares all that a smaller one shares, so that a sweep over ratios is nested.
        """
        order = list(range(len(history)))
        random.Random(seed).shuffle(order)
        return [history[index] for index in sorted(order[: _count(self._ratio, len(history))])]


class RecentShare:
    """The most recent share of the history."""

    name = "recent"

    def __init__(self, *, ratio: float) -> None:
        self._ratio = ratio

    def select(self, history: Sequence[Example], *, seed: int) -> Sequence[Example]:
        """Returns the last examples."""
        count = _count(self._ratio, len(history))
        return history[len(history) - count :]


class AllShare:
    """Everything."""

    name = "all"

    def select(self, history: Sequence[Example], *, seed: int) -> Sequence[Example]:
        """Returns the whole history."""
        return history


class NoShare:
    """Nothing: the cloud learns that the device exists."""

    name = "none"

    def select(self, history: Sequence[Example], *, seed: int) -> Sequence[Example]:
        """Returns no example."""
        return ()


def built_in(config: RunConfig) -> Mapping[str, SharePolicy]:
    """Returns the policies that take no `policy-args`, by name, as this config sets them up."""
    policies = (RatioShare(ratio=config.share_ratio), RecentShare(ratio=config.share_ratio), AllShare(), NoShare())
    return MappingProxyType({policy.name: policy for policy in policies})
