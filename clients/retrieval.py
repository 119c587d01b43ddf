"""Retrieval: items of the user's own history before a question, in LaMP's words (Salemi et al. 2023, Table 5)."""

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from bm25s import BM25

from cdcda_flower.config import RunConfig
from cdcda_flower.plugins import Retriever
from cdcda_flower.plugins.registry import make
from cdcda_flower.plugins.seams import RETRIEVER
from cdcda_flower.tasks import ProfileForm, Task
from cdcda_flower.tasks.task import INPUT, filled
from cdcda_flower.types import Example
from cdcda_flower.words import first_words, words

_SEPARATOR = ", and "
_WITHOUT_INPUT = '"{output}"'
# LaMP's own words around an item are up to eight; with fewer of the item's it says nothing.
_LEAST_WORDS = 12
# How much of its words a history keeps where the model would not take the prompt whole.
_SMALLER = 0.8


class Question(NamedTuple):
    """An input to put history before: held out, or one that is trained on, with its `answer`.

    The items whose ids are in `apart` may not stand before it.
    """

    query: str
    answer: str = ""
    apart: Collection[str] = ()


class Room(NamedTuple):
    """How much history stands before a question: so many items, of so many words together, in a prompt that `is_whole`.

    `is_whole(prompt, answer)` says whether a model takes both uncut.
    """

    items: int
    words: int
    is_whole: Callable[[str, str], bool]


def behind_history(
    config: RunConfig, history: Sequence[Example], questions: Sequence[Question], is_whole: Callable[[str, str], bool]
) -> list[str]:
    """Returns what `with_history` does, with the task, the form and the room that the config names."""
    task, room = config.chosen_task, Room(config.rag_items, config.rag_words, is_whole)
    form, retriever = task.form(config.profile_form), make_retriever(config)
    return with_history(task, form, history, questions, retriever=retriever, room=room)


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
    questions: Sequence[Question],
    *,
    retriever: Retriever,
    room: Room,
) -> list[str]:
    """Returns each question behind those history items that the retriever ranks highest, the best first.

    Of the room's words an item gets an equal part, and what a short one leaves goes to those after it; there are fewer
    where the prompt would not be whole. Items that would get less than a few words are left out.
    """
    if not history:
        return [question.query for question in questions]
    texts = [_indexed(task, form, example) for example in history]
    rankings = retriever.rank(texts, [sought(task, question.query) for question in questions])
    found = []
    for (query, answer, apart), places in zip(questions, rankings, strict=True):
        best = list(islice((history[place] for place in places if history[place].id not in apart), room.items))
        tried = (
            _joined(task, query, _entries(task, form, best[: limit // _LEAST_WORDS], limit))
            for limit in _ever_fewer(room.words)
        )
        found.append(next((prompt for prompt in tried if room.is_whole(prompt, answer)), query))
    return found


def _ever_fewer(words: int) -> Iterator[int]:
    """Yields ever fewer words, down to those that hold one item."""
    while words >= _LEAST_WORDS:
        yield words
        words = int(words * _SMALLER)


def sought(task: Task, query: str) -> str:
    """Returns what is looked for in the history: the two options where the question offers them, else its free text."""
    offered = task.offered(query)
    return f"{offered['first']} {offered['second']}" if offered else task.free_text(query, "")


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
    if x and INPUT in form.entry:
        fixed = len(words(filled(form.entry, input="x", output=y))) - 1
        return filled(form.entry, input=_cut(x, room - fixed), output=y)
    return filled(form.entry if x or INPUT not in form.entry else _WITHOUT_INPUT, output=_cut(y, room))


def _cut(text: str, limit: int) -> str:
    return first_words(text, max(1, limit))


def _joined(task: Task, query: str, entries: Sequence[str]) -> str:
    if not entries:
        return query
    before, after, rest = query.partition(task.after) if task.after and task.after in query else ("", "", query)
    return before + after + filled(task.retrieved, entries=_SEPARATOR.join(entries), question=rest)
