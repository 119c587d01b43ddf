"""`cdcda data check`: what a table of one's own holds, which rows cannot be read, and what a run would do with it."""

import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from cdcda_flower.config import RunConfig
from cdcda_flower.data.prepare import Prepared, prepare
from cdcda_flower.data.table import is_table, open_table
from cdcda_flower.data.table_split import StoredTable, store, stored_table
from cdcda_flower.errors import BadInputError, DataError
from cdcda_flower.runs.locations import cache_folder
from cdcda_flower.tasks import Task
from cdcda_flower.tasks.task_file import INPUT_FIELD, OUTPUT_FIELD
from cdcda_flower.words import words
from experiments.terminal import Terminal

_SHOWN = 10  # problems that are told one by one
_SAMPLED = 1000  # rows whose characters are looked at
_WIDTH = 18


def check_table(config: RunConfig, terminal: Terminal) -> bool:
    """Prints what the config's table holds; returns whether a run can use it as it is."""
    if not is_table(config.data):
        raise DataError(
            f"data is {config.data!r}, which is no table; `cdcda data prepare` checks files in LaMP's format"
        )
    task = config.chosen_task
    try:
        # What a run does first; it finds the rows again.
        _say_rows(stored_table(config.data, config.columns, task, cache=cache_folder(config)), terminal)
    except DataError:
        bad = _Bad()
        with tempfile.TemporaryDirectory() as scratch:
            # Raises the same error again where the table as a whole cannot be read.
            _say_rows(
                store(open_table(config.data, config.columns, task), Path(scratch, "rows"), on_bad=bad.add), terminal
            )
        bad.say(terminal)
        return False
    try:
        prepared = prepare(config, cache_folder(config))
    except BadInputError as error:
        terminal.say(f"A run stops here: {error}")
        return False
    title = f"A run with task {config.chosen_task.name}, num-users {config.num_users}, test-per-user {config.test_per_user}:"
    _say(terminal, title, _plan(prepared))
    for note in prepared.notes():
        terminal.say(f"Note: {note}")
    return True


class _Bad:
    """The rows that cannot be read: their number, and the first of them."""

    def __init__(self) -> None:
        self._count = 0
        self._first: list[str] = []

    def add(self, error: DataError) -> None:
        self._count += 1
        if len(self._first) < _SHOWN:
            self._first.append(str(error))

    def say(self, terminal: Terminal) -> None:
        terminal.say(f"{self._count:,} rows cannot be read; a run stops at the first:")
        for problem in self._first:
            terminal.say(f"  {problem}")


def _say_rows(stored: StoredTable, terminal: Terminal) -> None:
    title = f"{stored.table.source}: {stored.rows().num_rows:,} rows that can be read"
    _say(terminal, title, _facts(stored, stored.table.task))


def _say(terminal: Terminal, title: str, facts: Iterator[tuple[str, str]]) -> None:
    terminal.say(title)
    for name, value in facts:
        terminal.say(f"  {name:<{_WIDTH}} {value}")


def _facts(stored: StoredTable, task: Task) -> Iterator[tuple[str, str]]:
    people: Counter[str] = Counter()
    answers: Counter[str] = Counter()
    lengths: dict[str, list[int]] = {INPUT_FIELD: [], OUTPUT_FIELD: []}
    times: list[float] = []
    scripts: Counter[str] = Counter()
    rows = stored.rows()
    for place, row in enumerate(rows):
        people[row["user"]] += 1
        answers[row[OUTPUT_FIELD]] += bool(task.labels)
        for field in lengths:
            lengths[field].append(len(words(row[field])))
        times += [row["time"]] if row["time"] is not None else []
        if place < _SAMPLED:
            scripts.update(_scripts(row[INPUT_FIELD] + row[OUTPUT_FIELD]))
    if not people:
        return
    yield "people", f"{len(people):,}, with {_spread(list(people.values()))} rows each"
    empty = lengths[INPUT_FIELD].count(0)
    yield "input", f"{_spread(lengths[INPUT_FIELD])} words" + (f"; empty in {empty:,} rows" if empty else "")
    if task.labels:
        yield "output", ", ".join(f"{label} {count:,}" for label, count in answers.most_common())
    else:
        yield "output", f"{_spread(lengths[OUTPUT_FIELD])} words"
    yield "time", "read from its column" if times else "no such column: rows are in the order of time"
    total = scripts.total()
    if total:
        shares = ", ".join(f"{name.title()} {count / total:.0%}" for name, count in scripts.most_common(5))
        yield "letters", f"{shares} (of the first {min(len(rows), _SAMPLED):,} rows)"
    if stored.skipped:
        yield "left out", f"{stored.skipped:,} rows without an output, or without an input that the task needs"


def _scripts(text: str) -> Iterator[str]:
    # The first word of a letter's name in Unicode is its script's.
    for character in text:
        if character.isalpha():
            yield unicodedata.name(character, "unnamed").split()[0]


def _plan(prepared: Prepared) -> Iterator[tuple[str, str]]:
    histories = [prepared.histories[user] for user in prepared.user_ids]
    yield "devices", f"{len(histories):,} people with {_spread(histories)} history items"
    yield "held out", f"{sum(prepared.queries.values()):,} examples"
    yield "M_base", f"{prepared.base_row_count:,} rows of everybody else"
    dropped = {**prepared.removed, **prepared.skipped}
    yield "left out", ", ".join(f"{reason} {count:,}" for reason, count in dropped.items()) or "nothing"


def _spread(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,} (median {median(values):g})"
