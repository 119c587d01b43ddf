"""What answers score that need no model: the user's majority, a copy of the nearest history item, the corpus's oracle.

A method that does not beat the first two has learned less from a history than counting and copying.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from cdcda_flower.tasks import Task
from cdcda_flower.tasks.metrics import answer_sums
from cdcda_flower.types import Example, Prediction, UserHistory
from cdcda_flower.words import tokens

Words: TypeAlias = Counter[str]
SumsByUser: TypeAlias = dict[str, dict[str, float]]

# LaMP-1's query: `…the paper with the title "T", which reference … [1]: "A" [2]: "B"`. Titles may hold quotes.
_OPTIONS = re.compile(
    r'^(?P<title>.*?)", which reference .*?\[1\]: "(?P<first>.*)" \[2\]: "(?P<second>.*)"$', re.DOTALL
)


def reference_sums(
    task: Task, histories: Sequence[UserHistory], oracle: Mapping[str, str] | None
) -> dict[str, SumsByUser]:
    """Returns name -> user id -> metric sums of the reference answers.

    `majority`: the user's most frequent response; for a text task, where all differ, the most recent one. LaMP-1 has
    none: its histories hold titles, not labels.
    `nearest-copy`: the response of the history item whose free text has the highest ROUGE-1 with the query's; in LaMP-1
    the option that shares more words with that response.
    `oracle` (only where given): what the corpus's traits imply, without slips.
    A user without history has no majority and no nearest item, and is left out there.
    """
    remembered = [history for history in histories if history.examples]
    sums: dict[str, SumsByUser] = {}
    if not _has_options(task):
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
        yield _closer_option(query, response) if _has_options(task) else response


def _has_options(task: Task) -> bool:
    return task.kind == "label" and not any(form.labelled for form in task.forms)


def _own_text(task: Task, query: Example) -> str:
    text = task.free_text(query.query, query.response)
    parts = _OPTIONS.match(text) if _has_options(task) else None
    # The options would lead the search to the history items that resemble them, not to those that resemble the paper.
    return parts["title"] if parts else text


def _closer_option(query: Example, response: str) -> str:
    parts = _OPTIONS.match(query.query)
    if parts is None:
        return ""
    words = _words(response)
    return "[2]" if _overlap(words, _words(parts["second"])) > _overlap(words, _words(parts["first"])) else "[1]"


def _words(text: str) -> Words:
    return Counter(tokens(text))


def _overlap(left: Words, right: Words) -> float:
    """Returns the F measure of the shared words (ROUGE-1)."""
    size = left.total() + right.total()
    return 2 * (left & right).total() / size if size else 0.0
