"""Retrieval: items of the user's own history before a question, in LaMP's words (Salemi et al. 2023, Table 5)."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from bm25s import BM25

from cdcda_flower.config import RunConfig
from cdcda_flower.plugins import Retriever
from cdcda_flower.plugins.registry import make
from cdcda_flower.plugins.seams import RETRIEVER
from cdcda_flower.tasks import ProfileForm, Task
from cdcda_flower.types import Example
from cdcda_flower.words import first_words, words

_SEPARATOR = ", and "
# LaMP's own words around an item are up to eight; with fewer of the item's it says nothing.
_LEAST_WORDS = 12
# How much of its words a history keeps where the model would not take the prompt whole.
_SMALLER = 0.8


class Room(NamedTuple):
    """How much history stands before a question: so many items, of so many words together, in a prompt that `is_whole`."""

    items: int
    words: int
    is_whole: Callable[[str], bool]


class Bm25Retriever:
    """BM25; ties go to the more recent item. Words are compared as they are written, as in LaMP's code."""

    def rank(self, history: Sequence[str], questions: Sequence[str]) -> list[list[int]]:
        """Returns per question all places in the history, the best first."""
        index = BM25()
        index.index([words(text) or [""] for text in history], show_progress=False)
        return [self._ranked(index, words(question), len(history)) for question in questions]

    def _ranked(self, index: BM25, wanted: list[str], items: int) -> list[int]:
        scores = index.get_scores(wanted) if wanted else [0.0] * items
        return sorted(range(items), key=lambda place: (-float(scores[place]), -place))


def make_retriever(config: RunConfig) -> Retriever:
    """Returns what the key `retriever` names."""
    return make(RETRIEVER, config.retriever, config, {"bm25": Bm25Retriever})


def with_history(
    task: Task,
    form: ProfileForm,
    history: Sequence[Example],
    queries: Sequence[str],
    *,
    retriever: Retriever,
    room: Room,
) -> list[str]:
    """Returns each question behind those history items that the retriever ranks highest, the best first.

    Of the room's words an item gets an equal part, and what a short one leaves goes to those after it; there are fewer
    where the prompt would not be whole. Items that would get less than a few words are left out.
    """
    if not history:
        return list(queries)
    texts = [_indexed(task, form, example) for example in history]
    rankings = retriever.rank(texts, [sought(task, query) for query in queries])
    found = []
    for query, places in zip(queries, rankings, strict=True):
        best = [history[place] for place in places[: room.items]]
        tried = (
            _joined(task, query, _entries(task, form, best[: limit // _LEAST_WORDS], limit))
            for limit in _ever_fewer(room.words)
        )
        found.append(next(filter(room.is_whole, tried), query))
    return found


def _ever_fewer(words: int) -> Iterator[int]:
    """Yields ever fewer words, down to those that hold one item."""
    while words >= _LEAST_WORDS:
        yield words
        words = int(words * _SMALLER)


def sought(task: Task, query: str) -> str:
    """Returns what is looked for in the history: LaMP-1's two candidates, else the question's free text."""
    found = re.search(task.sought, query) if task.sought else None
    return " ".join(found.groups()) if found else task.free_text(query, "")


def _indexed(task: Task, form: ProfileForm, example: Example) -> str:
    text = task.free_text(example.query, "") if example.query else ""
    return text if form.labelled else f"{text} {example.response}"


def _entries(task: Task, form: ProfileForm, chosen: Sequence[Example], room: int) -> list[str]:
    entries = []
    for place, example in enumerate(chosen):
        entry = _entry(task, form, example, room // (len(chosen) - place))
        room -= len(words(entry))
        entries.append(entry)
    return entries


def _entry(task: Task, form: ProfileForm, example: Example, room: int) -> str:
    """Returns the item in LaMP's words; its text is cut where it takes more than `room` words."""
    x, y = task.free_text(example.query, "") if example.query else "", example.response
    if "{x}" in form.entry:
        fixed = len(words(form.entry.format(x="x", y=y))) - 1
        return form.entry.format(x=_cut(x, room - fixed), y=y)
    return form.entry.format(y=_cut(y, room))


def _cut(text: str, limit: int) -> str:
    return first_words(text, max(1, limit))


def _joined(task: Task, query: str, entries: Sequence[str]) -> str:
    if not entries:
        return query
    before, after, rest = query.partition(task.after) if task.after and task.after in query else ("", "", query)
    return before + after + task.retrieved.format(entries=_SEPARATOR.join(entries), question=rest)
