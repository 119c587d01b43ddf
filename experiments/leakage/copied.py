"""How much of a user's own text stands in the pairs that were written for them: the longest run of equal words.

Of another user's items nothing can be copied, since the cloud writes a pair from one example: what the pairs have in common
with them is chance and the task's manner. So what was not shared leaks where pairs have more in common with it than that.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cdcda_flower.statistics import Interval, intervals_over_users
from cdcda_flower.tasks import Task
from cdcda_flower.types import Example, SyntheticPair
from cdcda_flower.words import tokens

# Fewer equal words in a row are common in any two texts of a kind.
LONG_RUN = 8


_COLUMNS = ("source", "source_long", "unshared", "unshared_long", "others", "above")


class Runs:
    """The texts in which runs of words are looked for."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = [tokens(text) for text in texts]
        self._grams: dict[int, set[tuple[str, ...]]] = {}

    def longest(self, text: str) -> int:
        """Returns the length, in words, of the longest run that the text shares with one of these."""
        words, length = tokens(text), 0
        # A run of n words holds one of n - 1.
        while _grams(words, length + 1) & self._of(length + 1):
            length += 1
        return length

    def _of(self, length: int) -> set[tuple[str, ...]]:
        if length not in self._grams:
            self._grams[length] = set().union(*(_grams(words, length) for words in self._texts))
        return self._grams[length]


def _grams(words: Sequence[str], length: int) -> set[tuple[str, ...]]:
    return {tuple(words[start : start + length]) for start in range(len(words) - length + 1)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """The pairs of `users` users: the mean length of the longest run, in words, and the share of pairs with a long one.

    `source` is the example from which a pair was written, `unshared` the user's items that were not shared, and `others`
    as many items of another user. `above` is `unshared` less `others`. None where nobody has such items.
    """

    users: int
    pairs: int
    source: Interval | None
    source_long: Interval | None
    unshared: Interval | None
    unshared_long: Interval | None
    others: Interval | None
    above: Interval | None


def copied(
    task: Task,
    pairs: Sequence[SyntheticPair],
    shared: Mapping[tuple[str, str], Example],
    histories: Mapping[str, Sequence[Example]],
) -> Copied:
    """Returns how much of whose text stands in pairs; `shared` is by (user, example), in the form in which it left."""
    by_owner: dict[str, list[SyntheticPair]] = {}
    for pair in pairs:
        by_owner.setdefault(pair.provenance.user_id, []).append(pair)
    ring = sorted(histories)
    columns: dict[str, list[float]] = {name: [] for name in _COLUMNS}
    for user, own in sorted(by_owner.items()):
        texts = [_text(task, pair) for pair in own]
        sources = [
            Runs([_text(task, shared[user, pair.provenance.source_id])]).longest(text)
            for pair, text in zip(own, texts, strict=True)
        ]
        columns["source"].append(_mean(sources))
        columns["source_long"].append(_mean([length >= LONG_RUN for length in sources]))
        unshared = [item for item in histories[user] if (user, item.id) not in shared]
        neighbour = histories[ring[(ring.index(user) + 1) % len(ring)]][: len(unshared)]
        if unshared and neighbour and len(ring) > 1:
            kept_back, foreign = (Runs(_text(task, item) for item in items) for items in (unshared, neighbour))
            lengths = [kept_back.longest(text) for text in texts]
            columns["unshared"].append(_mean(lengths))
            columns["unshared_long"].append(_mean([length >= LONG_RUN for length in lengths]))
            columns["others"].append(_mean([foreign.longest(text) for text in texts]))
            columns["above"].append(columns["unshared"][-1] - columns["others"][-1])
    filled = [name for name in _COLUMNS if columns[name]]
    found = dict(zip(filled, intervals_over_users([columns[name] for name in filled]), strict=True))
    return Copied(users=len(by_owner), pairs=len(pairs), **{name: found.get(name) for name in _COLUMNS})


def _text(task: Task, one: Example | SyntheticPair) -> str:
    """Returns what the author wrote: a label or a rating is the task's word."""
    free = task.free_text(one.query, one.response)
    return f"{free}\n{one.response}" if one.query and not task.labels else free


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
