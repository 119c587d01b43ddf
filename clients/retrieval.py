"""Retrieval: items of the user's own history before a question, in LaMP's words (Salemi et al. 2023, Table 5)."""

import re
from collections.abc import Sequence

from bm25s import BM25

from cdcda_flower.tasks import ProfileForm, Task
from cdcda_flower.types import Example

_SEPARATOR = ", and "
# LaMP's own words around an item are up to eight; with fewer of the item's it says nothing.
_LEAST_WORDS = 12


def with_history(
    task: Task,
    form: ProfileForm,
    history: Sequence[Example],
    queries: Sequence[str],
    *,
    items: int,
    words: Sequence[int],
) -> list[str]:
    """Returns each question behind the `items` history items that BM25 ranks highest, the best first.

    All items of a question together take at most its number of `words`; an item gets an equal part, and what a short one
    leaves goes to those after it. Items that would get less than a few words are left out. Ties go to the more recent item. Words are split at spaces and compared as they are written,
    as in LaMP's code.
    """
    if not history:
        return list(queries)
    texts = [_indexed(task, form, example).split() or [""] for example in history]
    index = BM25()
    index.index(texts, show_progress=False)
    found = []
    for query, room in zip(queries, words, strict=True):
        best = _best(index, history, sought(task, query), min(items, room // _LEAST_WORDS))
        found.append(_joined(task, query, _entries(task, form, best, room)))
    return found


def sought(task: Task, query: str) -> str:
    """Returns what is looked for in the history: LaMP-1's two candidates, else the question's free text."""
    found = re.search(task.sought, query) if task.sought else None
    return " ".join(found.groups()) if found else task.free_text(query, "")


def _indexed(task: Task, form: ProfileForm, example: Example) -> str:
    text = task.free_text(example.query, "") if example.query else ""
    return text if form.labelled else f"{text} {example.response}"


def _best(index: BM25, history: Sequence[Example], text: str, items: int) -> list[Example]:
    words = text.split()
    scores = index.get_scores(words) if words else [0.0] * len(history)
    ranked = sorted(range(len(history)), key=lambda place: (-float(scores[place]), -place))
    return [history[place] for place in ranked[:items]]


def _entries(task: Task, form: ProfileForm, chosen: Sequence[Example], words: int) -> list[str]:
    entries = []
    for place, example in enumerate(chosen):
        room = words // (len(chosen) - place)
        entry = _entry(task, form, example, room)
        words -= len(entry.split())
        entries.append(entry)
    return entries


def _entry(task: Task, form: ProfileForm, example: Example, room: int) -> str:
    """Returns the item in LaMP's words; its text is cut where it takes more than `room` words."""
    x, y = task.free_text(example.query, "") if example.query else "", example.response
    if "{x}" in form.entry:
        fixed = len(form.entry.format(x="x", y=y).split()) - 1
        return form.entry.format(x=_cut(x, room - fixed), y=y)
    return form.entry.format(y=_cut(y, room))


def _cut(text: str, words: int) -> str:
    return " ".join(text.split()[: max(1, words)])


def _joined(task: Task, query: str, entries: Sequence[str]) -> str:
    if not entries:
        return query
    before, after, rest = query.partition(task.after) if task.after and task.after in query else ("", "", query)
    return before + after + task.retrieved.format(entries=_SEPARATOR.join(entries), question=rest)
