"""The tape: what the cloud wrote and what the scorer found, by content, in one SQLite file.

A key is a digest that whoever asks has made of what was asked; no prompt stands here. What is added is committed at
once, so it survives the process that paid for it. A damaged file is moved aside and a new tape begun.
"""

import json
import logging
import os
import sqlite3
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Literal, Self

from cdcda_flower.errors import CdcdaError, DataError, RunError
from cdcda_flower.files import private_files
from cdcda_flower.models.sources import is_path
from cdcda_flower.seeding import digest
from cdcda_flower.types import ModelRef, Sample

log = logging.getLogger(__name__)

# SQLite's own mark of a file's kind ("CDCA"), and of its form: a change of the tables, or of what a cell holds, is
# another version.
_APPLICATION, _VERSION = 0x43444341, 4
_SCHEMA = f"""
CREATE TABLE models (id TEXT PRIMARY KEY, role TEXT, maker TEXT, asked TEXT, name TEXT, digest TEXT);
CREATE TABLE calls (key TEXT PRIMARY KEY, model TEXT, samples TEXT, tokens INTEGER, created TEXT);
CREATE TABLE scores (key TEXT PRIMARY KEY, model TEXT, value REAL);
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_VERSION};
"""
ROLES: Mapping[str, Literal["cloud", "consistency"]] = MappingProxyType(
    {"cloud-model": "cloud", "consistency-model": "consistency"}
)
# A run writes for milliseconds at a time, so another one seldom waits.
_WAIT_S = 60.0

Cell = None | int | float | str | bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TapedModel:
    """A model that a tape has answers of: who ran it (an engine, a scorer), its name in the config, and what it was."""

    role: Literal["cloud", "consistency"]
    maker: str
    asked: str
    name: str
    digest: str

    @property
    def id(self) -> str:
        """What stands in the rows of its answers."""
        return digest([self.role, self.maker, self.asked, self.name, self.digest])[:16]

    @property
    def contents(self) -> str:
        """What tells it from every other model; a model whose files nobody here sees has only its name."""
        return self.digest or self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class TapedCall:
    """What the cloud answered to one request, and the tokens that it wrote."""

    samples: tuple[Sample, ...] = field(repr=False)
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStats:
    """What a tape holds of one model: calls with their samples and written tokens, or scores."""

    model: TapedModel
    calls: int
    samples: int
    tokens: int
    scores: int


class DamagedTapeError(DataError):
    """SQLite finds a tape's file damaged."""


class Tape:
    """An open tape; use it as a context manager. Any thread may call, one at a time.

    Several processes may write one tape at once. `damaged` is where a damaged tape was moved to when this one was opened,
    None where it was whole.
    """

    def __init__(self, path: Path, *, writable: bool) -> None:
        self.path, self._writable = path, writable
        self.damaged: Path | None = None
        self._connection: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        if self._writable and not self.path.exists():
            create_tape(self.path)
        found = _identity(self.path)
        try:
            self._connection = _open(self.path, writable=self._writable)
        except DamagedTapeError as error:
            if not self._writable:
                raise
            # Where another run was faster, its new tape stands there now.
            if _identity(self.path) == found:
                self.damaged = _moved_aside(self.path)
                log.warning("%s; it is kept as %s, and a new tape begins", error, self.damaged)
                create_tape(self.path)
            self._connection = _open(self.path, writable=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            _close(self._connection, writable=self._writable)
            self._connection = None

    def models(self) -> tuple[TapedModel, ...]:
        """Returns the models that the tape has answers of, in the order in which they were first used."""
        rows = self._rows("SELECT role, maker, asked, name, digest FROM models ORDER BY rowid")
        return tuple(TapedModel(role=r, maker=m, asked=a, name=n, digest=d) for r, m, a, n, d in rows)

    def calls(self, keys: Sequence[str]) -> dict[str, TapedCall]:
        """Returns key -> answers, of those keys that the tape has."""
        rows = self._rows(f"SELECT key, samples, tokens FROM calls {_AMONG}", json.dumps(keys))
        return {
            key: TapedCall(
                samples=tuple(Sample(text=text, cut=cut) for text, cut in json.loads(samples)), tokens=tokens
            )
            for key, samples, tokens in rows
        }

    def scores(self, keys: Sequence[str]) -> dict[str, float]:
        """Returns key -> score, of those keys that the tape has."""
        return dict(self._rows(f"SELECT key, value FROM scores {_AMONG}", json.dumps(keys)))

    def stats(self) -> tuple[ModelStats, ...]:
        """Returns what the tape holds, per model."""
        rows = self._rows("""
            SELECT role, maker, asked, name, digest, ifnull(calls.n, 0), ifnull(samples, 0), ifnull(tokens, 0),
                ifnull(scores.n, 0)
            FROM models
            LEFT JOIN (SELECT model, count(*) AS n, sum(json_array_length(samples)) AS samples, sum(tokens) AS tokens
                FROM calls GROUP BY model) AS calls ON calls.model = models.id
            LEFT JOIN (SELECT model, count(*) AS n FROM scores GROUP BY model) AS scores ON scores.model = models.id
            ORDER BY models.rowid
        """)
        return tuple(
            ModelStats(
                model=TapedModel(role=role, maker=maker, asked=asked, name=name, digest=digest),
                calls=calls,
                samples=samples,
                tokens=tokens,
                scores=scores,
            )
            for role, maker, asked, name, digest, calls, samples, tokens, scores in rows
        )

    def add_model(self, model: TapedModel) -> None:
        """Adds a model, if the tape has it not yet."""
        m = model
        self._write("INSERT OR IGNORE INTO models", [(m.id, m.role, m.maker, m.asked, m.name, m.digest)])

    def add_call(self, key: str, model: TapedModel, call: TapedCall) -> None:
        """Adds what the cloud answered; of two answers to one request the one with more samples stays."""
        samples = json.dumps([[sample.text, sample.cut] for sample in call.samples])
        row = (key, model.id, samples, call.tokens, datetime.now(UTC).isoformat("T", "seconds"))
        self._write("INSERT INTO calls", [row], _MORE_SAMPLES)

    def add_scores(self, model: TapedModel, scores: Mapping[str, float]) -> None:
        """Adds scores under their keys, all or none."""
        self._write("INSERT OR IGNORE INTO scores", [(key, model.id, float(value)) for key, value in scores.items()])

    def _rows(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        assert self._connection is not None
        with _explained(self.path):
            return self._connection.execute(query, values).fetchall()

    def _write(self, insert: str, rows: Sequence[tuple[Cell, ...]], conflict: str = "") -> None:
        if rows:
            assert self._connection is not None
            marks = ", ".join("?" * len(rows[0]))
            with _explained(self.path), _transaction(self._connection):
                self._connection.executemany(f"{insert} VALUES ({marks}) {conflict}", rows)


_AMONG = "WHERE key IN (SELECT value FROM json_each(?))"
_MORE_SAMPLES = """
ON CONFLICT (key) DO UPDATE SET
    model = excluded.model, samples = excluded.samples, tokens = excluded.tokens, created = excluded.created
WHERE json_array_length(excluded.samples) > json_array_length(calls.samples)
"""


def export(path: Path) -> Iterator[dict[str, object]]:
    """Yields every call and score of a tape as one JSON object, as far as a damaged file can be read.

    Raises DamagedTapeError at the first row that cannot be.
    """
    with _explained(path), closing(_connected(path, writable=False)) as connection:
        _check_kind(path, connection)
        query = (
            "SELECT key, role, asked, samples, tokens, created FROM calls LEFT JOIN models ON models.id = calls.model "
            "ORDER BY calls.rowid"
        )
        for key, role, asked, samples, tokens, created in connection.execute(query):
            texts = [{"text": text, "cut": cut} for text, cut in json.loads(samples)]
            yield {"key": key, "role": role, "model": asked, "samples": texts, "tokens": tokens, "created": created}
        query = "SELECT key, role, asked, value FROM scores LEFT JOIN models ON models.id = scores.model ORDER BY scores.rowid"
        for key, role, asked, value in connection.execute(query):
            yield {"key": key, "role": role, "model": asked, "score": value}


@private_files()
def create_tape(path: Path) -> None:
    """Writes an empty tape that appears whole; where another run was faster, its tape stays."""
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(sqlite3.connect(draft)) as connection:
                connection.executescript(_SCHEMA)
            with suppress(FileExistsError):
                # Unlike a rename, a link never takes the name of a tape that another run has begun to write.
                os.link(draft, path)
        finally:
            draft.unlink(missing_ok=True)
    except (OSError, sqlite3.Error) as error:
        raise DataError(
            f'tape {path} cannot be made: {error}; give another file in `tape`, or tape-mode = "off"'
        ) from None


def _open(path: Path, *, writable: bool) -> sqlite3.Connection:
    """Returns a connection to a whole tape; raises DataError where there is none, or one of another version."""
    with _explained(path):
        connection = _connected(path, writable=writable)
        try:
            _check_kind(path, connection)
            (first, *_) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if first != "ok":
                raise _damaged(path, str(first).split("\n")[-1])
            if writable:
                connection.execute("PRAGMA journal_mode = WAL")
                # What was committed survives the end of this process; a power cut may take the last seconds.
                connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            connection.close()
            raise
    return connection


def _connected(path: Path, *, writable: bool) -> sqlite3.Connection:
    place = f"{path.absolute().as_uri()}?mode={'rw' if writable else 'ro'}"
    if path.exists() and not path.is_file():
        raise DataError(f"tape {path} is a folder, or no file for another reason; name a file in `tape`")
    if not path.is_file():
        raise DataError(
            f'tape {path} does not exist; a run with tape-mode = "record" makes one, or name another in `tape`'
        )
    return sqlite3.connect(place, uri=True, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)


def _close(connection: sqlite3.Connection, *, writable: bool) -> None:
    """Ends a connection; a closed tape is one plain file, to copy or to read from a read-only disk."""
    if writable:
        # Another run that uses it keeps it in WAL; what is damaged was said before.
        with suppress(sqlite3.DatabaseError):
            connection.execute("PRAGMA busy_timeout = 0")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()


def _check_kind(path: Path, connection: sqlite3.Connection) -> None:
    """Raises DataError where the file is no tape, or one of another version."""
    (kind,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if kind != _APPLICATION:
        raise _no_tape(path)
    if version != _VERSION:
        raise DataError(
            f"tape {path} has version {version} and this release reads {_VERSION}; "
            "name another tape, or install the release that recorded it"
        )


def _identity(path: Path) -> int | None:
    """Returns what tells a file from another one of the same name; None where there is none."""
    return path.stat().st_ino if path.exists() else None


def _moved_aside(path: Path) -> Path:
    """Gives a damaged tape, and what lies beside it, a name that no file has; returns the name."""
    kept = path.with_name(f"{path.name}.damaged-{uuid.uuid4().hex[:8]}")
    for ending in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.replace(f"{path}{ending}", f"{kept}{ending}")
    return kept


def asked_name(maker: str, name: str) -> str:
    """Returns a model's name without its folder, which differs between machines."""
    return Path(name).name if is_path(name) and maker != "openai" else name


def replayed_model(tape: Tape, key: str, maker: str, name: str) -> ModelRef:
    """Returns the model that a tape was recorded with under a config key's name.

    Raises DataError where the tape has no answers of such a model, or of several.
    """
    role = ROLES[key]
    known = [model for model in tape.models() if model.role == role]
    named = [model for model in known if (model.maker, model.asked) == (maker, asked_name(maker, name))]
    if not named:
        have = ", ".join(sorted({f"{model.asked} ({model.maker})" for model in known})) or f"no {role} model"
        raise DataError(
            f"{key} is {name!r} ({maker}); tape {tape.path} has answers of {have}; "
            'name that model, another tape, or take tape-mode = "record"'
        )
    if len({model.contents for model in named}) > 1:
        digests = ", ".join(model.digest[:12] for model in named)
        raise DataError(
            f"{key} is {name!r}; tape {tape.path} has answers of several models of that name ({digests}), and a "
            'replay looks at no model\'s files; take tape-mode = "record", which asks only for what is missing'
        )
    return ModelRef(name=named[0].name, path="", digest=named[0].digest)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commits what the block writes, all or none."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # On a full disk SQLite has rolled back already, and would say that there is nothing to roll back.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns SQLite's errors into ours, with the file and what to do."""
    try:
        yield
    except sqlite3.Error as error:
        raise _explanation(path, error) from None


def _explanation(path: Path, error: sqlite3.Error) -> CdcdaError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code == sqlite3.SQLITE_NOTADB:
        return _no_tape(path)
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return RunError(f"tape {path} was in use by another program for {_WAIT_S:.0f} s; end that one and run again")
    if code == sqlite3.SQLITE_CORRUPT:
        return _damaged(path, str(error))
    return RunError(f"tape {path} cannot be read or written: {error}; see to its disk, or name another file in `tape`")


def _no_tape(path: Path) -> DataError:
    return DataError(
        f"{path} is no tape, or nothing is left of it; name a tape's file in `tape`, or one that does not exist yet; if it "
        'was one, move it away: lost is only the recording, and the next run with tape-mode = "record" begins a new one'
    )


def _damaged(path: Path, what: str) -> DamagedTapeError:
    return DamagedTapeError(
        f"tape {path} is damaged: {what}; bring a copy back, or save what can be read with `cdcda tape export`: the next "
        'run with tape-mode = "record" moves the file aside and begins a new tape'
    )
