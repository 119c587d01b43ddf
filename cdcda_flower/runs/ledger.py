"""The run's ledger: what was uploaded, written, judged, selected, trained and measured, in one SQLite file.

One writer, the server process, which commits every call: what was added survives a crash. Readers open the file
read-only, also while the run goes on.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from cdcda_flower.errors import DataError, RunError
from cdcda_flower.teacher_targets import TeacherTargets
from cdcda_flower.types import (
    AdapterRef,
    Example,
    Provenance,
    SyntheticPair,
    TrainingReport,
    TrainingStats,
    Unparsable,
    Upload,
    UserFailure,
    UserResult,
    Verdict,
)

Cell = None | int | float | str
# SQLite gives cells without types; every row becomes a typed value in the method that asked for it.
_Row = tuple[Any, ...]
_SUMS = TypeAdapter(dict[str, float])
_MANY_SUMS = TypeAdapter(list[dict[str, float]])
_PROVENANCE = (
    "user_id TEXT NOT NULL, source_id TEXT NOT NULL, generator TEXT, prompt_digest TEXT, seed INTEGER, sample INTEGER"
)
# Another program may look at the ledger while the run goes on.
_WAIT_S = 60.0
_REMEDIES: Mapping[int, str] = MappingProxyType(
    {
        sqlite3.SQLITE_FULL: "free some space",
        sqlite3.SQLITE_BUSY: f"end the program that has held it for {_WAIT_S:.0f} s",
        sqlite3.SQLITE_READONLY: "make it writable",
        sqlite3.SQLITE_CANTOPEN: "make its folder writable",
        sqlite3.SQLITE_CORRUPT: "nothing in it is needed to go on",
        sqlite3.SQLITE_NOTADB: "nothing in it is needed to go on",
    }
)
VERSION = 3  # of the tables; another version's ledger is refused
_SCHEMA = f"""
PRAGMA user_version = {VERSION};
CREATE TABLE IF NOT EXISTS uploads (
    user_id TEXT PRIMARY KEY, policy TEXT, history_size INTEGER, query_count INTEGER, shared INTEGER, bytes_up INTEGER);
CREATE TABLE IF NOT EXISTS shared (
    user_id TEXT, id TEXT, query TEXT, response TEXT, PRIMARY KEY (user_id, id));
CREATE TABLE IF NOT EXISTS pairs (id TEXT PRIMARY KEY, query TEXT, response TEXT, {_PROVENANCE});
CREATE TABLE IF NOT EXISTS unparsable (id TEXT PRIMARY KEY, reason TEXT, {_PROVENANCE});
CREATE TABLE IF NOT EXISTS verdicts (
    pair_id TEXT, filter TEXT, keep INTEGER, score REAL, reason TEXT, PRIMARY KEY (pair_id, filter));
CREATE TABLE IF NOT EXISTS selected (user_id TEXT, pair_id TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS variants (id TEXT PRIMARY KEY, query TEXT, response TEXT, {_PROVENANCE});
CREATE TABLE IF NOT EXISTS sent (method TEXT, user_id TEXT, pair_id TEXT, PRIMARY KEY (method, pair_id));
CREATE TABLE IF NOT EXISTS answers (
    user_id TEXT, method TEXT, bytes_down INTEGER, PRIMARY KEY (user_id, method));
CREATE TABLE IF NOT EXISTS lengths (user_id TEXT PRIMARY KEY, items INTEGER);
CREATE TABLE IF NOT EXISTS taught (user_id TEXT PRIMARY KEY, examples INTEGER, bytes_down INTEGER);
CREATE TABLE IF NOT EXISTS questions (
    user_id TEXT, method TEXT, count INTEGER, bytes_up INTEGER, PRIMARY KEY (user_id, method));
CREATE TABLE IF NOT EXISTS trainings (
    user_id TEXT, method TEXT, trained_as TEXT, base_digest TEXT, weights_digest TEXT, private INTEGER, synthetic INTEGER,
    dropped INTEGER, tokens INTEGER, steps INTEGER, first_loss REAL, last_loss REAL, seconds REAL,
    PRIMARY KEY (user_id, method));
CREATE TABLE IF NOT EXISTS results (
    user_id TEXT, method TEXT, adapter_of TEXT, queries INTEGER, unparsed INTEGER, sums TEXT, seconds REAL);
CREATE UNIQUE INDEX IF NOT EXISTS one_result ON results (user_id, method, ifnull(adapter_of, ''));
CREATE TABLE IF NOT EXISTS failures (user_id TEXT, phase TEXT, reason TEXT);
CREATE TABLE IF NOT EXISTS egress (user_id TEXT, at TEXT, phase TEXT, reply TEXT, bytes INTEGER);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadRow:
    """What one device let go, in numbers: `shared` examples of `history_size`, in `bytes_up` bytes on the wire."""

    user_id: str
    policy: str
    history_size: int
    query_count: int
    shared: int
    bytes_up: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Egress:
    """One reply that left a device: when the cloud had it (UTC, ISO 8601), its type, and its size as UTF-8."""

    user_id: str
    at: str
    phase: str
    reply: str
    bytes: int


class Ledger:
    """The one writer of a ledger; use it as a context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        with _explained(self._path):
            self._connection = sqlite3.connect(self._path, timeout=_WAIT_S)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.executescript(_SCHEMA)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            # A closed ledger is one plain file that opens from a read-only disk too; a reader at work keeps it in WAL.
            with suppress(sqlite3.OperationalError):
                self._connection.execute("PRAGMA journal_mode = DELETE")
            self._connection.close()
            self._connection = None

    def add_upload(self, upload: Upload, bytes_up: int) -> None:
        """Adds what one device shared: its counts, its examples, its size on the wire."""
        with self._transaction() as connection:
            counts = (upload.user_id, upload.policy, upload.history_size, upload.query_count, len(upload.examples))
            _insert(connection, "uploads", [(*counts, bytes_up)])
            _insert(connection, "shared", [(upload.user_id, e.id, e.query, e.response) for e in upload.examples])

    def add_pairs(self, pairs: Sequence[SyntheticPair]) -> None:
        """Adds pairs that the cloud wrote, whether or not a filter keeps them."""
        self._add("pairs", [(p.id, p.query, p.response, *_origin(p.provenance)) for p in pairs])

    def add_unparsable(self, outputs: Sequence[Unparsable]) -> None:
        """Adds cloud outputs that are no pair."""
        self._add("unparsable", [(u.id, u.reason, *_origin(u.provenance)) for u in outputs])

    def add_verdicts(self, verdicts: Sequence[Verdict]) -> None:
        """Adds the filters' judgements."""
        self._add("verdicts", [(v.pair_id, v.filter, int(v.keep), v.score, v.reason) for v in verdicts])

    def add_selected(self, user_id: str, pair_ids: Sequence[str]) -> None:
        """Adds the pairs that go back to a device."""
        self._add("selected", [(user_id, pair_id) for pair_id in pair_ids])

    def add_variants(self, pairs: Sequence[SyntheticPair]) -> None:
        """Adds pairs that were made from shared examples without a model."""
        self._add("variants", [(p.id, p.query, p.response, *_origin(p.provenance)) for p in pairs])

    def add_sent(self, method: str, user_id: str, pair_ids: Sequence[str]) -> None:
        """Adds the pairs that a method sends to a device for training."""
        self._add("sent", [(method, user_id, pair_id) for pair_id in pair_ids])

    def add_questions(self, user_id: str, method: str, prompts: Sequence[str]) -> None:
        """Adds how many questions a device put to the cloud for a method, and their size in UTF-8; not their texts."""
        self._add("questions", [(user_id, method, len(prompts), sum(len(prompt.encode()) for prompt in prompts))])

    def add_answers(self, user_id: str, method: str, texts: Sequence[str]) -> None:
        """Adds the size of what the cloud answered a device for a method, as JSON in UTF-8; not the texts."""
        self._add("answers", [(user_id, method, len(json.dumps(texts, ensure_ascii=False).encode()))])

    def add_lengths(self, items: Mapping[str, int]) -> None:
        """Adds how many history items each user has, those included that `max-history` leaves out."""
        self._add("lengths", list(items.items()))

    def add_taught(self, user_id: str, targets: Sequence[TeacherTargets]) -> None:
        """Adds for how many examples a teacher's distributions went to a device, and their size on the wire."""
        self._add("taught", [(user_id, len(targets), sum(target.byte_size for target in targets))])

    def add_training(self, report: TrainingReport) -> None:
        """Adds what training one adapter took."""
        a, r, s = report.adapter, report, report.stats
        adapter = (a.user_id, a.method, a.trained_as, a.base_digest, a.weights_digest)
        sizes = (r.private, r.synthetic, r.dropped, s.tokens, s.steps)
        self._add("trainings", [(*adapter, *sizes, s.first_loss, s.last_loss, s.seconds)])

    def add_result(self, result: UserResult) -> None:
        """Adds one user's metric sums under one method."""
        r, sums = result, json.dumps(dict(result.sums), sort_keys=True)
        self._add("results", [(r.user_id, r.method, r.adapter_of, r.queries, r.unparsed, sums, r.seconds)])

    def add_egress(self, replies: Sequence[Egress]) -> None:
        """Adds replies that left devices."""
        self._add("egress", [(r.user_id, r.at, r.phase, r.reply, r.bytes) for r in replies])

    def add_failure(self, failure: UserFailure) -> None:
        """Adds a user whose phase did not finish."""
        self._add("failures", [(failure.user_id, failure.phase, failure.reason)])

    def _add(self, table: str, rows: Sequence[tuple[Cell, ...]]) -> None:
        with self._transaction() as connection:
            _insert(connection, table, rows)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        assert self._connection is not None, "the ledger is closed; use it as a context manager"
        with _explained(self._path), self._connection:
            yield self._connection


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns what the disk or another program did to a ledger into a RunError; a row that is there already is our fault."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.DatabaseError as error:
        raise _explanation(path, error) from None


def _explanation(path: Path, error: sqlite3.DatabaseError) -> RunError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    return RunError(
        f"ledger {path} cannot be written: {error}; {_REMEDIES.get(code, 'see to its disk')}, and resume the run"
    )


def begin_anew(path: Path) -> None:
    """Empties a ledger for a run that goes through its steps again, but for what has left the devices; a damaged one goes."""
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(path, timeout=_WAIT_S)) as connection, connection:
            tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name != 'egress'")
            for (table,) in tables.fetchall():
                connection.execute(f"DELETE FROM {table}")
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            raise _explanation(path, error) from None
        for ending in ("", "-wal", "-shm"):
            Path(f"{path}{ending}").unlink(missing_ok=True)


class LedgerReader:
    """Reads a ledger without ever writing, also while the run goes on; a file that is no ledger is a DataError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def uploads(self) -> tuple[UploadRow, ...]:
        """Returns what each device let go, in numbers, by user."""
        names = "user_id, policy, history_size, query_count, shared, bytes_up"
        return tuple(
            UploadRow(user_id=u, policy=p, history_size=h, query_count=q, shared=s, bytes_up=b)
            for u, p, h, q, s, b in self._rows(f"SELECT {names} FROM uploads ORDER BY user_id")
        )

    def shared(self) -> dict[tuple[str, str], Example]:
        """Returns every shared example under (user id, example id)."""
        rows = self._rows("SELECT user_id, id, query, response FROM shared ORDER BY user_id, rowid")
        return {(u, i): Example(id=i, query=q, response=r) for u, i, q, r in rows}

    def pairs(self) -> tuple[SyntheticPair, ...]:
        """Returns every pair that the cloud wrote, in the order in which they were added."""
        return tuple(
            SyntheticPair(id=i, query=q, response=r, provenance=_provenance(origin))
            for i, q, r, *origin in self._rows("SELECT * FROM pairs ORDER BY rowid")
        )

    def unparsable(self) -> tuple[Unparsable, ...]:
        """Returns every cloud output that is no pair."""
        return tuple(
            Unparsable(id=i, reason=r, provenance=_provenance(origin))
            for i, r, *origin in self._rows("SELECT * FROM unparsable ORDER BY rowid")
        )

    def verdicts(self) -> tuple[Verdict, ...]:
        """Returns every filter's judgement of every pair."""
        return tuple(
            Verdict(pair_id=p, filter=f, keep=bool(k), score=s, reason=r)
            for p, f, k, s, r in self._rows("SELECT * FROM verdicts ORDER BY rowid")
        )

    def selected(self) -> dict[str, str]:
        """Returns pair id -> user id of the pairs that went back to a device."""
        return {p: u for u, p in self._rows("SELECT user_id, pair_id FROM selected ORDER BY rowid")}

    def variants(self) -> tuple[SyntheticPair, ...]:
        """Returns the pairs that were made without a model, in the order in which they were added."""
        return tuple(
            SyntheticPair(id=i, query=q, response=r, provenance=_provenance(origin))
            for i, q, r, *origin in self._rows("SELECT * FROM variants ORDER BY rowid")
        )

    def sent(self) -> dict[str, dict[str, str]]:
        """Returns pair id -> user id of what each method sent, by method."""
        found: dict[str, dict[str, str]] = {}
        for method, user_id, pair_id in self._rows("SELECT method, user_id, pair_id FROM sent"):
            found.setdefault(method, {})[pair_id] = user_id
        return found

    def questions(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Returns (user id, method) -> how many questions were put to the cloud, and in how many bytes."""
        rows = self._rows("SELECT user_id, method, count, bytes_up FROM questions ORDER BY rowid")
        return {(u, m): (c, b) for u, m, c, b in rows}

    def answers(self) -> dict[tuple[str, str], int]:
        """Returns (user id, method) -> the bytes of the cloud's answers."""
        rows = self._rows("SELECT user_id, method, bytes_down FROM answers ORDER BY rowid")
        return {(user_id, method): size for user_id, method, size in rows}

    def lengths(self) -> dict[str, int]:
        """Returns how many history items each user has, used or not."""
        return dict(self._rows("SELECT user_id, items FROM lengths ORDER BY user_id"))

    def taught(self) -> dict[str, tuple[int, int]]:
        """Returns for how many examples each user got a teacher's distributions, and in how many bytes."""
        rows = self._rows("SELECT user_id, examples, bytes_down FROM taught ORDER BY user_id")
        return {user_id: (examples, size) for user_id, examples, size in rows}

    def trainings(self) -> tuple[TrainingReport, ...]:
        """Returns what each adapter took, by user and method."""
        return tuple(_training(row) for row in self._rows("SELECT * FROM trainings ORDER BY user_id, method"))

    def training_costs(self) -> dict[tuple[str, str], tuple[int, float]]:
        """Returns (user id, method) -> the tokens and the seconds of each training."""
        rows = self._rows("SELECT user_id, method, tokens, seconds FROM trainings")
        return {(user, method): (tokens, seconds) for user, method, tokens, seconds in rows}

    def written(self) -> dict[str, int]:
        """Returns how many pairs the cloud wrote for each user."""
        return dict(self._rows("SELECT user_id, count(*) FROM pairs GROUP BY user_id"))

    def results(self) -> tuple[UserResult, ...]:
        """Returns every user's metric sums, by user, swap tests included."""
        rows = self._rows("SELECT * FROM results ORDER BY user_id, rowid")
        return tuple(
            UserResult(user_id=u, method=m, adapter_of=a, queries=q, unparsed=n, sums=sums, seconds=t)
            for (u, m, a, q, n, _, t), sums in zip(rows, self._sums(rows), strict=True)
        )

    def counts(self) -> dict[str, int]:
        """Returns how many rows the tables of the cloud's outputs and of the results have, swap tests included."""
        tables = ("pairs", "unparsable", "selected", "results")
        return {table: int(self._rows(f"SELECT count(*) FROM {table}")[0][0]) for table in tables}

    def rejections(self) -> dict[str, int]:
        """Returns how many pairs each filter that judged rejects, in the order of their first verdicts."""
        rows = self._rows("SELECT filter, sum(NOT keep) FROM verdicts GROUP BY filter ORDER BY min(rowid)")
        return {name: int(count) for name, count in rows}

    def reasons(self) -> dict[str, int]:
        """Returns why cloud outputs are no pairs, and how many are none for that reason."""
        return dict(self._rows("SELECT reason, count(*) FROM unparsable GROUP BY reason"))

    def egress(self) -> tuple[Egress, ...]:
        """Returns every reply that left a device, in the order of arrival, those before a resumed run's stop included."""
        rows = self._rows("SELECT user_id, at, phase, reply, bytes FROM egress ORDER BY rowid")
        return tuple(Egress(user_id=u, at=a, phase=p, reply=r, bytes=b) for u, a, p, r, b in rows)

    def failures(self) -> tuple[UserFailure, ...]:
        """Returns the users whose phase did not finish."""
        rows = self._rows("SELECT user_id, phase, reason FROM failures ORDER BY user_id, phase")
        return tuple(UserFailure(user_id=u, phase=p, reason=r) for u, p, r in rows)

    def _sums(self, rows: Sequence[_Row]) -> list[dict[str, float]]:
        texts = [text for *_, text, _ in rows]
        try:
            # One text for all: a hundred thousand calls take a second.
            found = _MANY_SUMS.validate_json(f"[{','.join(texts)}]", strict=True)
        except (TypeError, ValidationError):
            found = []
        if len(found) == len(rows):
            return found
        user, method = next((u, m) for u, m, _, _, _, text, _ in rows if not _are_sums(text))
        raise DataError(
            f"{self._path}: the metric sums of user {user!r} under {method!r} are no JSON object of numbers; "
            "the ledger is damaged: copy it again, or run anew"
        )

    def _rows(self, query: str) -> list[_Row]:
        try:
            with closing(sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
                [(version,)] = connection.execute("PRAGMA user_version").fetchall()
                rows = connection.execute(query).fetchall() if version == VERSION else []
        except sqlite3.Error as error:
            raise DataError(f"{self._path} cannot be read as a run's ledger: {error}") from error
        except UnicodeDecodeError:
            # Its message would quote the bytes, which may be a person's text.
            raise DataError(
                f"{self._path} is damaged: a text in it is no UTF-8; copy it again, resume the run, or run anew"
            ) from None
        if version != VERSION:
            raise DataError(
                f"{self._path} is a ledger of version {version}, this is {VERSION}; read it with the version of the code that "
                "wrote it, or run anew"
            )
        return rows


def _are_sums(text: Any) -> bool:  # noqa: ANN401 - a cell without a type
    try:
        _SUMS.validate_json(text, strict=True)
    except ValidationError:
        return False
    return isinstance(text, str)


def _insert(connection: sqlite3.Connection, table: str, rows: Sequence[tuple[Cell, ...]]) -> None:
    if rows:
        connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)


def _origin(provenance: Provenance) -> tuple[Cell, ...]:
    p = provenance
    return p.user_id, p.source_id, p.generator, p.prompt_digest, p.seed, p.sample


def _provenance(row: Iterable[Any]) -> Provenance:
    user, source, generator, prompt_digest, seed, sample = row
    return Provenance(
        user_id=user, source_id=source, generator=generator, prompt_digest=prompt_digest, seed=seed, sample=sample
    )


def _training(row: _Row) -> TrainingReport:
    user, method, trained_as, base, weights, private, synthetic, dropped, tokens, steps, first, last, seconds = row
    adapter = AdapterRef(user_id=user, method=method, trained_as=trained_as, base_digest=base, weights_digest=weights)
    return TrainingReport(
        adapter=adapter,
        private=private,
        synthetic=synthetic,
        dropped=dropped,
        stats=TrainingStats(steps=steps, tokens=tokens, first_loss=first, last_loss=last, seconds=seconds),
    )
