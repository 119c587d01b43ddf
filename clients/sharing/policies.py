"""The built-in share policies: which examples of its history a device lets go (the paper's I_u)."""

import random
from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal

from cdcda_flower.config import RunConfig
from cdcda_flower.plugins import Example, SharePolicy
from cdcda_flower.plugins.registry import make
from cdcda_flower.plugins.seams import SHARE_POLICY


def _count(ratio: float, size: int) -> int:
    # As the ratio is written: 0.7 * 45 is less than 31.5 in binary.
    return int((Decimal(str(ratio)) * size).quantize(Decimal(1), ROUND_HALF_UP))


class RatioShare:
    """The paper's: a share of the history, drawn by the user's seed."""

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

    def __init__(self, *, ratio: float) -> None:
        self._ratio = ratio

    def select(self, history: Sequence[Example], *, seed: int) -> Sequence[Example]:
        """Returns the last examples."""
        count = _count(self._ratio, len(history))
        return history[len(history) - count :]


class AllShare:
    """Everything."""

    def select(self, history: Sequence[Example], *, seed: int) -> Sequence[Example]:
        """Returns the whole history."""
        return history


class NoShare:
    """Nothing: the cloud learns that the device exists."""

    def select(self, history: Sequence[Example], *, seed: int) -> Sequence[Example]:
        """Returns no example."""
        return ()


def make_policy(config: RunConfig) -> SharePolicy:
    """Returns the policy that `share-policy` names."""
    built_in: Mapping[str, Callable[[], SharePolicy]] = {
        "ratio": lambda: RatioShare(ratio=config.share_ratio),
        "recent": lambda: RecentShare(ratio=config.share_ratio),
        "all": AllShare,
        "none": NoShare,
    }
    return make(SHARE_POLICY, config.share_policy, config, built_in)
