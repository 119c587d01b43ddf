"""Which users are targets, and what of their items and the others' may train: pure rules, no files.

Every text that is dropped is counted by reason; the counts stand in the prepared folder.
"""

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from cdcda_flower.data.lamp_rows import Profile
from cdcda_flower.errors import ConfigError
from cdcda_flower.tasks import ProfileForm, Task
from cdcda_flower.types import Example, UserHistory, same_text
from cdcda_flower.words import first_words

MISSING_FIELD = "missing-field"
IS_QUERY = "is-query"
REPEATED = "repeated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How LaMP's rows become examples in this run: the task, the profile form, the word limit (0 = none)."""

    task: Task
    form: ProfileForm
    max_words: int

    def item_examples(self, profile: Profile, *, where: str) -> Iterator[Example | None]:
        """Yields each profile item as an example, whole; None where it lacks a field that the form needs."""
        for item_id, item in profile.items:
            example = self.form.example(item_id, item)
            if example and self.form.labelled:
                self.task.check_gold(example.response, where=f"{where}, user {profile.user_id!r}, item {item_id!r}")
            yield example

    def cut(self, example: Example) -> Example:
        """Returns the example with at most `max_words` words of free text in x; the fixed wording is kept."""
        # A question that ends with two options keeps them.
        if not self.max_words or not example.query or _asks_for_an_option(self.task, example):
            return example
        parts = self.task.parts(example.query)
        text = parts.text.strip()
        cut = first_words(text, self.max_words)
        return example if cut == text else replace(example, query=parts.before + cut + parts.after)


def identity(task: Task, example: Example) -> frozenset[str]:
    """Returns the texts that mark two examples as the same piece of writing where they share one.

    x in general, y where x has no text of its own. LaMP-7's items have no x: their tweet is compared with the query's
    gold. LaMP-1's items are papers: their title is compared with that of the paper the query asks about, whose citations
    would give the answer away.
    """
    free_text = task.free_text(example.query, "")
    texts = [example.query if free_text else example.response]
    if task.form_of(example):
        # A table may ask what an item asks without the task's words.
        texts.append(free_text)
    if task.models_text:
        texts.append(example.response)
    if task.subject:
        texts.append(_subject(task, example))
    return frozenset(same_text(text) for text in texts)


def _subject(task: Task, example: Example) -> str:
    free_text = task.free_text(example.query, "")
    if _asks_for_an_option(task, example):
        offered = task.offered(example.query)
        return offered["subject"] if offered else free_text
    form = task.form_of(example)
    return example.response if form and form.response_field == task.subject else free_text


def _asks_for_an_option(task: Task, example: Example) -> bool:
    return bool(task.options) and example.query.startswith(task.before)


class HeldOut:
    """The queries that no training text may repeat, by id or by text, whole or cut to the word limit."""

    def __init__(self, reading: Reading, queries: Iterable[Example]) -> None:
        """Remembers ids and texts of the queries; their answers too, which an item without x may not repeat."""
        self._reading = reading
        self._ids: set[str] = set()
        self._texts: set[str] = set()
        self._answers: set[str] = set()
        for query in queries:
            self._ids.add(query.id)
            self._texts |= self._identities(query)
            self._answers.add(same_text(query.response))

    def holds(self, example: Example) -> bool:
        """Says whether the example is one of the queries."""
        if not example.query and same_text(example.response) in self._answers:
            return True
        return example.id in self._ids or not self._texts.isdisjoint(self._identities(example))

    def _identities(self, example: Example) -> frozenset[str]:
        whole, cut = identity(self._reading.task, example), self._reading.cut(example)
        return whole if cut is example else whole | identity(self._reading.task, cut)


class Cleaned(NamedTuple):
    """What is left of a user's items, and how many fell out for which reason."""

    examples: tuple[Example, ...]
    dropped: Counter[str]


def clean(reading: Reading, examples: Iterable[Example | None], held_out: HeldOut) -> Cleaned:
    """Returns the examples without queries and repetitions, cut to the word limit, in their order.

    Repeated are examples with the same id, or with the same x and y: one movie with two tags stays twice.
    """
    kept: list[Example] = []
    dropped: Counter[str] = Counter()
    ids: set[str] = set()
    pairs: set[tuple[str, str]] = set()
    for example in examples:
        if example is None:
            dropped[MISSING_FIELD] += 1
            continue
        pair = (same_text(example.query), same_text(example.response))
        if held_out.holds(example):
            dropped[IS_QUERY] += 1
        elif example.id in ids or pair in pairs:
            dropped[REPEATED] += 1
        else:
            kept.append(reading.cut(example))
        ids.add(example.id)
        pairs.add(pair)
    return Cleaned(tuple(kept), dropped)


def asked_elsewhere(histories: Iterable[UserHistory], held_out: HeldOut) -> dict[str, tuple[str, ...]]:
    """Returns, by user, the ids of the items of cleaned histories that another user is asked; users without one are left out.

    A user may train on them, the answer being the user's own; what is trained on all users together may not.
    """
    found = {
        # Ids are unique in a history only: texts decide, as for the rows of M_base.
        history.user_id: tuple(
            e.id for e in history.examples if held_out.holds(replace(e, id=f"{history.user_id}/{e.id}"))
        )
        for history in histories
    }
    return {user_id: ids for user_id, ids in found.items() if ids}


def choose_targets(history_sizes: Mapping[str, int], num_users: int, *, split: str) -> tuple[str, ...]:
    """Returns the ids, sorted, of the users with the longest history; ties go by user id."""
    able = [user_id for user_id, size in history_sizes.items() if size]
    if len(able) < num_users:
        without = len(history_sizes) - len(able)
        reason = f" ({without} more have no item left after cleaning)" if without else ""
        raise ConfigError(
            f"num-users is {num_users}, but the {split} split has {len(able)} users with a history{reason}; "
            f"set num-users to at most {len(able)}"
        )
    longest = sorted(able, key=lambda user_id: (-history_sizes[user_id], user_id))
    return tuple(sorted(longest[:num_users]))


def most_recent(examples: Sequence[Example], limit: int) -> tuple[Example, ...]:
    """Returns the last `limit` examples (0 = all); file order is time order."""
    return tuple(examples[-limit:] if limit else examples)


def draw(examples: Iterable[Example], limit: int, *, seed: int) -> Iterator[Example]:
    """Yields `limit` of the examples drawn evenly (0 = all), in their order; memory holds `limit` of them."""
    if not limit:
        yield from examples
        return
    rng = random.Random(seed)
    drawn: list[tuple[int, Example]] = []
    for index, example in enumerate(examples):  # reservoir sampling: the stream's length is not known
        if index < limit:
            drawn.append((index, example))
        elif (slot := rng.randrange(index + 1)) < limit:
            drawn[slot] = (index, example)
    yield from (example for _, example in sorted(drawn, key=lambda pair: pair[0]))
