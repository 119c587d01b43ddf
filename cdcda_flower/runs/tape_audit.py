"""What a tape holds, and whether it is what was written; a damaged one is read as far as it can be."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cdcda_flower.runs.tape import (
    Cell,
    DamagedTapeError,
    TapedModel,
    check_kind,
    connect,
    explained,
    open_connection,
    seal_of,
)

# Models first: answers are of one of them.
COLUMNS = {
    "models": "id, role, maker, asked, name, digest",
    "calls": "key, model, samples, tokens, created",
    "scores": "key, model, value",
}
# No row takes fewer with its place in the index, and few numbers are not taken.
_LEAST_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStats:
    """What a tape holds of one model: calls with their samples and written tokens, or scores."""

    model: TapedModel
    calls: int
    samples: int
    tokens: int
    scores: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What a check of every row found, by table: rows that can be read, those among them that were changed, and sound
    answers whose model is on no sound row; and what is wrong with the file itself.

    A row that is missing cannot be seen.
    """

    rows: dict[str, int]
    changed: dict[str, int]
    nameless: dict[str, int]
    structure: str

    @property
    def damaged(self) -> bool:
        """Whether the file is not what was written."""
        return bool(self.structure) or any(self.changed.values())

    @property
    def sound(self) -> int:
        """The number of rows that are what was written."""
        return sum(self.rows.values()) - sum(self.changed.values())


def tape_stats(path: Path) -> tuple[ModelStats, ...]:
    """Returns what the tape holds, per model."""
    query = """
        SELECT role, maker, asked, name, digest, ifnull(calls.n, 0), ifnull(samples, 0), ifnull(tokens, 0),
            ifnull(scores.n, 0)
        FROM models
        LEFT JOIN (SELECT model, count(*) AS n, sum(json_array_length(samples)) AS samples, sum(tokens) AS tokens
            FROM calls GROUP BY model) AS calls ON calls.model = models.id
        LEFT JOIN (SELECT model, count(*) AS n FROM scores GROUP BY model) AS scores ON scores.model = models.id
        ORDER BY models.rowid
    """
    with explained(path), closing(open_connection(path, writable=False)) as connection:
        rows = connection.execute(query).fetchall()
    return tuple(
        ModelStats(
            model=TapedModel(role=role, maker=maker, asked=asked, name=name, digest=digest),
            calls=calls, samples=samples, tokens=tokens, scores=scores,
        )
        for role, maker, asked, name, digest, calls, samples, tokens, scores in rows
    )  # fmt: skip


def audit(path: Path) -> Audit:
    """Reads every row and checks its seal, and has SQLite check the file's own structure."""
    try:
        with opened_broken(path, alone=False) as connection:
            return _audit(path, connection)
    except DamagedTapeError:
        none = dict.fromkeys(COLUMNS, 0)
        return Audit(rows=none, changed=none, nameless=none, structure="SQLite cannot read it at all")


@contextmanager
def opened_broken(path: Path, *, alone: bool) -> Iterator[sqlite3.Connection]:
    """Gives a tape of which parts may be missing; where `alone`, nobody else can write to it or begin to."""
    with explained(path), closing(connect(path, writable=alone)) as connection:
        # SQLite otherwise refuses a file that is shorter than its header says.
        connection.execute("PRAGMA writable_schema = ON")
        if alone:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("BEGIN EXCLUSIVE")
        check_kind(path, connection)
        yield connection


def read_rows(connection: sqlite3.Connection, table: str) -> Iterator[tuple[Cell, ...]]:
    """Yields every row that can be read, with its seal."""
    # In the table's own order: an index may still hold what the table lost.
    query = f"SELECT rowid, {COLUMNS[table]}, seal FROM {table} NOT INDEXED"
    seen = set[int]()
    try:
        for rowid, *row in connection.execute(f"{query} ORDER BY rowid"):
            seen.add(rowid)
            yield tuple(row)
    except sqlite3.DatabaseError:
        yield from _past_broken_pages(connection, query, seen)


def _past_broken_pages(connection: sqlite3.Connection, query: str, seen: set[int]) -> Iterator[tuple[Cell, ...]]:
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (page,) = connection.execute("PRAGMA page_size").fetchone()
    for rowid in range(1, pages * page // _LEAST_BYTES):
        if rowid not in seen:
            with suppress(sqlite3.DatabaseError):
                for _, *row in connection.execute(f"{query} WHERE rowid = ?", (rowid,)).fetchall():
                    yield tuple(row)


def is_sound(row: Sequence[Cell]) -> bool:
    """Says whether a row with its seal is what was written."""
    *cells, seal = row
    return seal == seal_of(cells)


def _audit(path: Path, connection: sqlite3.Connection) -> Audit:
    rows, changed, nameless = (dict.fromkeys(COLUMNS, 0) for _ in range(3))
    names = set[Cell]()
    for table in COLUMNS:
        for row in read_rows(connection, table):
            rows[table] += 1
            if not is_sound(row):
                changed[table] += 1
            elif table == "models":
                names.add(row[0])
            elif row[1] not in names:
                nameless[table] += 1
    return Audit(rows=rows, changed=changed, nameless=nameless, structure=_structure(path, connection))


def _structure(path: Path, connection: sqlite3.Connection) -> str:
    try:
        (first, *_) = connection.execute("PRAGMA integrity_check").fetchone()
    except sqlite3.DatabaseError as error:
        return str(error)
    if first != "ok":
        return str(first).split("\n")[-1]
    try:
        open_connection(path, writable=False).close()
    except DamagedTapeError:
        return "its end is missing"
    return ""
