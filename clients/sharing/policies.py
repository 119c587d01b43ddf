"""The built-in share policies: which examples of its history a device lets go (the paper's I_u), and how they are chained.

Each says in its docstring what it guarantees, whatever the history.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from decimal import ROUND_HALF_UP, Decimal

import regex

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import RunError, ShareError, coded
from cdcda_flower.plugins import Example, SharePolicy
from cdcda_flower.plugins.registry import make
from cdcda_flower.plugins.seams import SHARE_POLICY
from cdcda_flower.seeding import derive_seed
from cdcda_flower.share_rules import PATTERN_SECONDS, excluding, own_ratio
from cdcda_flower.tasks import Task
from cdcda_flower.types import UserHistory
from clients.sharing.diverse import DiverseShare, embedded
from clients.sharing.reply_guard import as_it_leaves, checked_examples


def _count(ratio: float, size: int) -> int:
    # As the ratio is written: 0.7 * 45 is less than 31.5 in binary.
    return int((Decimal(str(ratio)) * size).quantize(Decimal(1), ROUND_HALF_UP))


def _drawn(size: int, seed: int) -> list[int]:
    """Returns the places of a history in an order of the user's own."""
    order = list(range(size))
    random.Random(seed).shuffle(order)
    return order


class RatioShare:
    """The paper's: a share of the history, drawn by the user's seed.

    Guarantee: exactly the ratio of the examples, rounded, a half up. A larger ratio shares all that a smaller one shares,
    so that a sweep over ratios is nested.
    """

    def __init__(self, *, ratio: float) -> None:
        self._ratio = ratio

    def select(self, history: Sequence[Example], *, seed: int) -> Sequence[Example]:
        """Returns the drawn examples in the order of the history."""
        drawn = _drawn(len(history), seed)[: _count(self._ratio, len(history))]
        return [history[place] for place in sorted(drawn)]


class RecentShare:
    """The most recent share of the history.

    Guarantee: exactly the ratio of the examples, rounded, a half up; no example that stays is more recent.
    """

    def __init__(self, *, ratio: float) -> None:
        self._ratio = ratio

    def select(self, history: Sequence[Example], *, seed: int) -> Sequence[Example]:
        """Returns the last examples."""
        count = _count(self._ratio, len(history))
        return history[len(history) - count :]


class PerUserShare:
    """A share of each person's own size, drawn as `ratio` draws it.

    Guarantee: exactly the person's own ratio of the examples, rounded, a half up.
    """

    def __init__(self, *, ratios: str, user_id: str) -> None:
        self._ratios, self._user_id = ratios, user_id

    def select(self, history: Sequence[Example], *, seed: int) -> Sequence[Example]:
        """Returns the drawn examples in the order of the history."""
        own = own_ratio(self._ratios, self._user_id, seed=seed)
        return RatioShare(ratio=own).select(history, seed=seed)


class BudgetShare:
    """As much as fits: examples in an order drawn by the user's seed, each that still fits; a bound of 0 is none.

    Guarantee: never more than `items` examples, and never more than `most_bytes` bytes of UTF-8 in their x and y together.
    No example that stays would still have fit.
    """

    def __init__(self, *, items: int, most_bytes: int) -> None:
        self._items, self._bytes = items, most_bytes

    def select(self, history: Sequence[Example], *, seed: int) -> Sequence[Example]:
        """Returns the examples that fit, in the order of the history."""
        items = self._items or len(history)
        left = self._bytes
        chosen: list[int] = []
        for place in _drawn(len(history), seed):
            size = _bytes(history[place])
            if len(chosen) < items and (not self._bytes or size <= left):
                chosen.append(place)
                left -= size
        return [history[place] for place in sorted(chosen)]


def _bytes(example: Example) -> int:
    # Half of a surrogate pair is the guard's to refuse.
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in (example.query, example.response))


class ExcludeShare:
    """The examples that a pattern does not match.

    Guarantee: no example of which the pattern matches x (without the task's fixed words) or y, as they reach the policy. A
    pattern that takes too long for a text lets nothing go: the run ends.
    """

    def __init__(self, *, pattern: "regex.Pattern[str]", task: Task) -> None:
        self._pattern, self._task = pattern, task

    def select(self, history: Sequence[Example], *, seed: int) -> Sequence[Example]:
        """Returns the examples without a match, in the order of the history."""
        return [
            example
            for example in history
            if not self._matches(self._task.parts(example.query).text) and not self._matches(example.response)
        ]

    def _matches(self, text: str) -> bool:
        try:
            return self._pattern.search(text, timeout=PATTERN_SECONDS) is not None
        except TimeoutError:
            raise coded(
                "slow-pattern",
                ShareError(
                    f"share-exclude took more than {PATTERN_SECONDS} seconds for one text; simplify the pattern"
                ),
            ) from None


class RedactShare:
    """All examples, with e-mail addresses, URLs, phone numbers, handles and numbers replaced by words such as `[email]`.

    Guarantee: of the kinds in `share-redact` no match is left in x (without the task's fixed words) or y, unless y is one of
    the task's labels. The guard makes the redaction again, and lets nothing else out.
    """

    def __init__(self, *, config: RunConfig) -> None:
        self._config = config

    def select(self, history: Sequence[Example], *, seed: int) -> Sequence[Example]:
        """Returns every example as it may leave."""
        return as_it_leaves(history, self._config)


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


def make_policies(config: RunConfig, user_id: str) -> Iterator[tuple[str, SharePolicy]]:
    """Yields the policies that `share-policy` names, in its order, for one user."""
    task = config.chosen_task
    built_in: Mapping[str, Callable[[], SharePolicy]] = {
        "ratio": lambda: RatioShare(ratio=config.share_ratio),
        "recent": lambda: RecentShare(ratio=config.share_ratio),
        "per-user": lambda: PerUserShare(ratios=config.share_ratios, user_id=user_id),
        "diverse": lambda: DiverseShare(
            count=lambda size: min(_count(config.share_ratio, size), config.share_items or size),
            text=lambda example: task.free_text(example.query, example.response),
            embed=embedded,
        ),
        "budget": lambda: BudgetShare(items=config.share_items, most_bytes=config.share_bytes),
        "exclude": lambda: ExcludeShare(pattern=excluding(config.share_exclude), task=task),
        "redact": lambda: RedactShare(config=config),
        "all": AllShare,
        "none": NoShare,
    }
    for name in config.share_policies:
        yield name, make(SHARE_POLICY, name, config, built_in)


def choose(config: RunConfig, history: UserHistory) -> tuple[Example, ...]:
    """Returns what the share policies let go: each works on what the one before it let through, with the user's seed.

    Raises RunError where a policy of the user's own raises, ShareError where one returns what it may not.
    """
    seed, left = derive_seed(config.seed, "share", history.user_id), history.examples
    for name, policy in make_policies(config, history.user_id):
        try:
            # A copy: what the policy changes in place is then none of the history.
            chosen: object = policy.select(deepcopy(left), seed=seed)
        except Exception as error:
            if name in SHARE_POLICY.built_in:
                raise
            # Whatever it raises may quote the history, our own types of error too.
            raise coded("policy-raised", RunError("the share policy raised an error")) from error
        left = checked_examples(chosen, as_it_leaves(left, config) if name == "redact" else left, policy=name)
    return left
