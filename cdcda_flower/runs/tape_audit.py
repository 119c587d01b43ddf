"""What a tape holds, and whether it is what was written."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from cdcda_flower.runs.tape import DamagedTapeError, TapedModel, close, explained, open_connection, seal_of, transaction

_COLUMNS = {
    "models": "id, role, maker, asked, name, digest",
    "calls": "key, model, samples, tokens, created",
    "scores": "key, model, value",
}


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
    """What a check of every row found: rows read, damaged rows, each by table, and damage of the file itself."""

    rows: dict[str, int]
    damaged: dict[str, tuple[int, ...]]  # rowids
    structure: str

    @property
    def count(self) -> int:
        """The number of damaged rows."""
        return sum(map(len, self.damaged.values()))


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
        with closing(open_connection(path, writable=False)) as connection:
            return _audit(connection)
    except DamagedTapeError:
        nothing = dict.fromkeys(_COLUMNS, 0)
        return Audit(rows=nothing, damaged=dict.fromkeys(_COLUMNS, ()), structure="SQLite cannot read it at all")


def drop_damaged(path: Path) -> Audit:
    """Removes the damaged rows, so that the next recording asks for them again; returns what a check then finds."""
    # What a broken structure does not let happen, the check afterwards says.
    with (
        suppress(DamagedTapeError),
        explained(path),
        closing(open_connection(path, writable=True)) as connection,
    ):
        found = _audit(connection)
        with transaction(connection):
            for table, rows in found.damaged.items():
                connection.executemany(f"DELETE FROM {table} WHERE rowid = ?", [(row,) for row in rows])
            connection.execute("REINDEX")
        close(connection, writable=True)
    return audit(path)


def _audit(connection: sqlite3.Connection) -> Audit:
    rows, damaged, structure = dict.fromkeys(_COLUMNS, 0), {}, ""
    for table, columns in _COLUMNS.items():
        bad = []
        try:
            for row, *cells, seal in _table(connection, table, columns):
                rows[table] += 1
                if seal != seal_of(cells):
                    bad.append(int(str(row)))
        except sqlite3.DatabaseError as error:
            structure = structure or str(error)
        damaged[table] = tuple(bad)
    return Audit(rows=rows, damaged=damaged, structure=structure or _structure(connection))


def _table(
    connection: sqlite3.Connection, table: str, columns: str
) -> Iterator[tuple[int | float | str | bytes | None, ...]]:
    # In the table's own order: an index may still hold what the table lost.
    yield from connection.execute(f"SELECT rowid, {columns}, seal FROM {table} NOT INDEXED ORDER BY rowid")


def _structure(connection: sqlite3.Connection) -> str:
    try:
        (first, *_) = connection.execute("PRAGMA integrity_check").fetchone()
    except sqlite3.DatabaseError as error:
        return str(error)
    return "" if first == "ok" else str(first).splitlines()[-1]
