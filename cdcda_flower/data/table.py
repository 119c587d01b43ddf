"""A table of one's own, one example a row -> checked rows: JSON (lines), CSV, Parquet, a `datasets` folder or hub id.

Messages name file, row and column, and never a user's text; a label that is none of the task's is said.
"""

import csv
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from cdcda_flower.data.json_stream import stream_values
from cdcda_flower.data.json_values import check_folder_name, digits, identifier, is_absent, kind, open_text, readable
from cdcda_flower.errors import DataError
from cdcda_flower.key_rules import HUB, column_names
from cdcda_flower.tasks import Task
from cdcda_flower.types import same_text

Record = Mapping[str, object]
OnBad = Callable[[DataError], None]

_SEPARATORS = {".csv": ",;\t|", ".tsv": "\t"}
_JSON = (".json", ".jsonl", ".ndjson")
SUFFIXES = (*_JSON, *_SEPARATORS, ".parquet")
_ROWS_AT_ONCE = 1000
_LONGEST_CELL = 1 << 30  # characters; csv's own limit is 131 072


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """One checked row. `input` is "" where the table has none; `time` is None where rows are in the order of time.

    `asked`: whether the row is a question by the table's own split, or an item of a history; None where time decides.
    """

    id: str
    user_id: str
    input: str = field(repr=False)
    output: str = field(repr=False)
    time: float | None
    asked: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Where a table lies, and which of its columns holds what: `columns` has the names that the key `columns` gives."""

    source: str
    columns: Mapping[str, str]
    task: Task

    @property
    def path(self) -> Path:
        """The file or folder."""
        return Path(self.source)


def is_table(source: str) -> bool:
    """Says whether `data` names a table: a file, a `datasets` folder, or a hub's id."""
    folder = Path(source)
    saved = any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))
    return source.startswith(HUB) or folder.is_file() or folder.suffix in SUFFIXES or saved


def open_table(source: str, columns: str, task: Task) -> Table:
    """Returns the table; raises DataError where there is none, or where the task cannot be asked of one."""
    if task.options:
        raise DataError(
            f"data is {source!r}, a table; questions of {task.name} offer two options each: give files in LaMP's format"
        )
    path = Path(source)
    if not source.startswith(HUB) and not path.exists():
        raise DataError(f'data is {source!r}, which does not exist; give a file or folder, or set data = "embedded"')
    if path.is_file() and path.suffix not in SUFFIXES:
        raise DataError(f"data is {source!r}; tables end in {', '.join(SUFFIXES)}: convert it, or rename it")
    return Table(source=source, columns=column_names(columns), task=task)


def table_rows(table: Table, on_bad: OnBad) -> Iterator[TableRow | None]:
    """Yields the rows that can be read, in the table's order; None for one without an output, or an input that the task needs.

    `on_bad` hears of each row that cannot be read, and may raise. Raises DataError where the table as a whole cannot be read.
    """
    reader = _Reader(table)
    empty = True
    for where, record in _records(table, on_bad):
        if empty:
            reader.look(record, fixed=table.path.suffix not in _JSON)
            empty = False
        try:
            rows = reader.rows(record, where)
        except DataError as error:
            on_bad(error)
            continue
        yield from rows
    if empty:
        raise DataError(f"{table.source} holds no rows")


class _Reader:
    """Reads records by the table's columns, as the first record shows them."""

    def __init__(self, table: Table) -> None:
        self._table, self._task = table, table.task
        self._columns = dict(table.columns)
        self._dates: bool | None = None
        self._timed: dict[bool | None, bool] = {}
        self._profiles: set[str] = set()
        self._number = 0

    def look(self, record: Record, *, fixed: bool) -> None:
        """Checks the columns by the first record: those that are named must be there, and those of user and output.

        `fixed`: every record has the same columns. In JSON a later one may have what the first lacks.
        """
        for role in ("user", "input", "output", "time"):
            self._columns.setdefault(role, role)
        for role, column in self._columns.items():
            asked = role in self._table.columns if fixed else False
            if role.startswith("profile-") or column in record or not (asked or role in ("user", "output")):
                continue
            raise DataError(
                f"{self._table.source} has no column {column!r} for the {role}; its columns: {', '.join(map(str, record))}; "
                f'name them: columns = "user=...,input=...,output=...,time=..."'
            )
        if fixed:
            self._columns = {r: c for r, c in self._columns.items() if c in record or r.startswith("profile-")}
        if fixed and self._task.kind != "text" and "input" not in self._columns:
            raise DataError(
                f"{self._table.source} has no column for the input, which {self._task.name} needs; its columns: "
                f'{", ".join(map(str, record))}; name it: columns = "input=..."'
            )

    def rows(self, record: Record, where: str) -> list[TableRow | None]:
        """Returns the record's row; with a profile column also the items of the user's history, once. None is a skipped one."""
        self._number += 1
        user = self._user(record, where)
        own_id = self._id(record.get(self._columns["id"]), where) if "id" in self._columns else f"row-{self._number}"
        profiled = "profile" in self._columns
        rows = [self._row(own_id, user, record, self._columns, where, asked=True if profiled else None)]
        if profiled and user not in self._profiles:
            self._profiles.add(user)
            rows = [*self._items(record.get(self._columns["profile"]), user, where), *rows]
        return rows

    def _items(self, profile: object, user: str, where: str) -> Iterator[TableRow | None]:
        if not isinstance(profile, Sequence) or isinstance(profile, str):
            raise DataError(f"{where}: the profile is {kind(profile)}; it must be a list of objects")
        # The names of an item's fields are the row's, unless columns names them.
        names = {role: self._columns.get(f"profile-{role}", role) for role in ("input", "output", "time")}
        if "profile-time" not in self._columns:
            del names["time"]
        for number, item in enumerate(profile, start=1):
            here = f"{where}, profile item {number}"
            if not isinstance(item, Mapping):
                raise DataError(f"{here} is {kind(item)}; it must be an object")
            yield self._row(f"row-{self._number}-item-{number}", user, item, names, here, asked=False)

    def _row(
        self, row_id: str, user: str, record: Record, columns: Mapping[str, str], where: str, *, asked: bool | None
    ) -> TableRow | None:
        output = self._text(record.get(columns["output"]), f"{where}: {columns['output']}", answer=True)
        text = self._text(record.get(columns["input"]), f"{where}: {columns['input']}") if "input" in columns else ""
        time = self._time(record, columns, where, asked) if "time" in columns else None
        if not output or not (text or self._task.kind == "text"):
            return None
        self._task.check_gold(output, where=where)
        return TableRow(id=row_id, user_id=user, input=text, output=output, time=time, asked=asked)

    def _user(self, record: Record, where: str) -> str:
        value = digits(record.get(self._columns["user"]))
        if is_absent(value) or (isinstance(value, str) and not same_text(value)):
            raise DataError(f"{where}: {self._columns['user']} is missing; every row needs its user")
        user = identifier(value, where=f"{where} has a {self._columns['user']}").strip()
        check_folder_name(user, where=where)
        return user

    def _id(self, value: object, where: str) -> str:
        value = digits(value)
        if is_absent(value) or value == "":
            raise DataError(
                f"{where}: {self._columns['id']} is missing; leave id out of columns, and rows are numbered"
            )
        return identifier(value, where=f"{where} has an {self._columns['id']}")

    def _text(self, value: object, where: str, *, answer: bool = False) -> str:
        if is_absent(value):
            return ""
        if answer and self._task.kind != "text":
            value = digits(value)
            if self._task.kind == "rating" and isinstance(value, str):
                value = _whole(value)
        if not isinstance(value, str):
            raise DataError(f"{where} is {kind(value)}; it must be a text")
        text = " ".join(readable(value).split())
        return text if same_text(text) else ""

    def _time(self, record: Record, columns: Mapping[str, str], where: str, asked: bool | None) -> float | None:
        column = columns["time"]
        timed = column in record or column in self._table.columns.values()
        # A question with a profile comes after all of its items, which may have a time where it has none.
        if self._timed.setdefault(asked, timed) != timed:
            state = "is here, and missing" if timed else "is missing, and there"
            raise DataError(f"{where}: {column} {state} in other rows; write all rows alike")
        if not timed:
            return None
        value = record.get(column)
        is_date, time = _point_in_time(value)
        if time is None:
            missing = is_absent(value) or value == ""
            said = "is missing" if missing else f"is {kind(value)} that is no time"
            raise DataError(
                f"{where}: {column} {said}; write a number, or a date such as 2026-11-28 or 2026-11-28T12:30:00"
            )
        if self._dates not in (None, is_date):
            raise DataError(
                f"{where}: {column} is a {'date' if is_date else 'number'}, other rows have the other; write all alike"
            )
        self._dates = is_date
        return time


def _point_in_time(value: object) -> tuple[bool, float | None]:
    """Returns whether a value is a date, and what it is sorted by; None where it is no time."""
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, str):
        value = _number_or_date(value.strip())
    if isinstance(value, datetime):
        return True, (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
        return False, float(value)
    return False, None


def _number_or_date(text: str) -> float | datetime | None:
    for read in (float, datetime.fromisoformat):
        try:
            return read(text)
        except ValueError:
            continue
    return None


def _whole(text: str) -> str:
    """Returns the digits of a whole number that a table writes as 4.0; any other text as it is."""
    try:
        return str(digits(float(text))) if float(text).is_integer() else text
    except (ValueError, OverflowError):
        return text


def _records(table: Table, on_bad: OnBad) -> Iterator[tuple[str, Record]]:
    """Yields each record with its place."""
    suffix = table.path.suffix
    if table.source.startswith(HUB) or table.path.is_dir():
        yield from _of_datasets(table)
    elif suffix in _SEPARATORS:
        yield from _of_csv(table.path, _SEPARATORS[suffix], on_bad)
    elif suffix == ".parquet":
        yield from _of_parquet(table.path)
    else:
        for number, value in enumerate(stream_values(table.path), start=1):
            if isinstance(value, dict):
                yield f"{table.path}, row {number}", value
            else:
                on_bad(DataError(f"{table.path}, row {number} is {kind(value)}; each row is a JSON object"))


def _of_csv(path: Path, separators: str, on_bad: OnBad) -> Iterator[tuple[str, Record]]:
    csv.field_size_limit(_LONGEST_CELL)
    with open_text(path, newline="") as file:
        line = 0
        try:
            first = file.readline()
            file.seek(0)
            separator = max(separators, key=first.count)
            reader = csv.reader(file, delimiter=separator, strict=True)
            names = next(reader, [])
            if len(set(names)) < len(names):
                raise DataError(f"{path}: two columns have one name; the first line names the columns, each once")
            for number, cells in enumerate(reader, start=1):
                line = reader.line_num
                where = f"{path}, row {number} (line {line})"
                if len(cells) == len(names):
                    yield where, dict(zip(names, cells, strict=True))
                elif cells:
                    on_bad(
                        DataError(
                            f"{where}: {len(cells)} cells, but {len(names)} columns; put a text that holds "
                            f'{separator!r} or a line end between double quotes (")'
                        )
                    )
        except csv.Error as error:
            raise DataError(
                f"{path}, line {reader.line_num}: {error}; quotes inside a quoted text are doubled"
            ) from None
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: no {error.encoding.upper()} after line {line}; save it as UTF-8") from None


def _of_parquet(path: Path) -> Iterator[tuple[str, Record]]:
    import pyarrow
    from pyarrow import parquet

    try:
        batches = parquet.ParquetFile(path).iter_batches(batch_size=_ROWS_AT_ONCE)
        yield from _numbered(str(path), (batch.to_pylist() for batch in batches))
    except pyarrow.ArrowException as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}; write it again") from None


def _of_datasets(table: Table) -> Iterator[tuple[str, Record]]:
    batches = load_dataset(table.source).with_format("arrow").iter(_ROWS_AT_ONCE)
    yield from _numbered(table.source, (batch.to_pylist() for batch in batches))


def _numbered(source: str, batches: Iterator[list[Record]]) -> Iterator[tuple[str, Record]]:
    for start, batch in enumerate(batches):
        for number, record in enumerate(batch, start=1):
            yield f"{source}, row {start * _ROWS_AT_ONCE + number}", record


def load_dataset(source: str) -> Any:  # noqa: ANN401 - `datasets` has no types
    """Returns the `datasets.Dataset` of a saved folder or a hub's id; raises DataError where there is none, or several."""
    import datasets

    try:
        name, _, split = source.removeprefix(HUB).partition("#")
        found = (
            datasets.load_dataset(name, split=split or None)
            if source.startswith(HUB)
            else datasets.load_from_disk(source)
        )
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        said = str(error).split("\n")[0]
        raise DataError(f"data is {source!r}, which `datasets` cannot load: {said}") from None
    if isinstance(found, datasets.DatasetDict):
        one = f"{HUB}owner/name#{next(iter(found))}" if source.startswith(HUB) else f"{source}/{next(iter(found))}"
        raise DataError(f"data is {source!r}, which has the splits {', '.join(found)}; name one, such as {one!r}")
    return found
