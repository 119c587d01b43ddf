"""What answers score that need no model: the user's majority, a copy of the nearest history item, the corpus's oracle.

A method that does not beat the first two has learned less from a history than counting and copying.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from cdcda_flower.tasks import Task
from cdcda_flower.tasks.metrics import answer_sums
from cdcda_flower.types import Example, Prediction, UserHistory
from cdcda_flower.words import tokens

Words: TypeAlias = Counter[str]
SumsByUser: TypeAlias = dict[str, dict[str, float]]


def reference_sums(
    task: Task, histories: Sequence[UserHistory], oracle: Mapping[str, str] | None
) -> dict[str, SumsByUser]:
    """Returns name -> user id -> metric sums of the reference answers.

    `majority`: the user's most frequent response; for a text task, where all differ, the most recent one. A task whose
    questions offer options has none (LaMP-1): its histories hold no labels.
    `nearest-copy`: the response of the history item whose free text has the highest ROUGE-1 with the query's; where a
    question offers options, the option that shares more words with that response.
    `oracle` (only where given): what the corpus's traits imply, without slips.
    A user without history has no majority and no nearest item, and is left out there.
    """
    remembered = [history for history in histories if history.examples]
    sums: dict[str, SumsByUser] = {}
    if not task.options:
        sums["majority"] = {user.user_id: _score(task, user, _majority(task, user)) for user in remembered}
    sums["nearest-copy"] = {user.user_id: _score(task, user, _nearest(task, user)) for user in remembered}
    if oracle is not None:
        sums["oracle"] = {
            user.user_id: _score(task, user, (oracle[query.id] for query in user.queries)) for user in histories
        }
    return sums


def _score(task: Task, user: UserHistory, answers: Iterable[str]) -> dict[str, float]:
    predictions = [
        Prediction(example_id=query.id, output=answer, parsed=task.parse(answer))
        for query, answer in zip(user.queries, answers, strict=True)
    ]
    return answer_sums(task, predictions, {query.id: query.response for query in user.queries})


def _majority(task: Task, user: UserHistory) -> list[str]:
    newest_first = [example.response for example in reversed(user.examples)]
    # `most_common` keeps the order of first sight: a tie goes to the most recent response.
    answer = newest_first[0] if task.kind == "text" else Counter(newest_first).most_common(1)[0][0]
    return [answer] * len(user.queries)


def _nearest(task: Task, user: UserHistory) -> Iterator[str]:
    items = [(_words(task.free_text(item.query, item.response)), item.response) for item in reversed(user.examples)]
    for query in user.queries:
        text = _words(_own_text(task, query))
        response = max(items, key=lambda item: _overlap(item[0], text))[1]
        yield _closer_option(task, query, response) if task.options else response


def _own_text(task: Task, query: Example) -> str:
    offered = task.offered(query.query)
    # The options would lead the search to the history items that resemble them, not to those that resemble the paper.
    return offered["subject"] if offered else task.free_text(query.query, query.response)


def _closer_option(task: Task, query: Example, response: str) -> str:
    parts = task.offered(query.query)
    if parts is None:
        return ""
    words = _words(response)
    first, second = (_overlap(words, _words(parts[option])) for option in ("first", "second"))
    return task.labels[second > first]


def _words(text: str) -> Words:
    return Counter(tokens(text))


def _overlap(left: Words, right: Words) -> float:
    """Returns the F measure of the shared words (ROUGE-1)."""
    size = left.total() + right.total()
    return 2 * (left & right).total() / size if size else 0.0
