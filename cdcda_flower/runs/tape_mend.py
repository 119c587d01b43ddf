"""Mends a tape: takes in what a killed run left beside it, and makes a new one of what is sound in a damaged one."""

import os
import shutil
import sqlite3
import uuid
from contextlib import closing, suppress
from itertools import chain, count
from pathlib import Path

from cdcda_flower.errors import RunError
from cdcda_flower.runs.tape import DamagedTapeError, close, explained, open_connection, write_empty
from cdcda_flower.runs.tape_audit import COLUMNS, is_sound, opened_broken, read_rows


def log_of(path: Path) -> Path:
    """Returns the file in which SQLite keeps the latest rows of a tape while it is used, and after a kill."""
    tape = path.resolve()
    return tape.with_name(f"{tape.name}-wal")


def fold(path: Path) -> None:
    """Writes the rows of the log into the tape; where a run uses the tape, or it is damaged, the log stays."""
    if log_of(path).exists():
        # That it is damaged is said by whoever reads it.
        with suppress(DamagedTapeError), explained(path):
            close(open_connection(path, writable=True), writable=True)


def mend(path: Path) -> Path:
    """Puts a new tape of the sound rows in a damaged one's place; returns where that one is kept.

    Raises RunError where a run uses it.
    """
    tape = path.resolve()
    draft = tape.with_name(f".{tape.name}.{uuid.uuid4().hex}")
    try:
        with explained(path):
            write_empty(draft)
            _copy_sound_rows(tape, draft)
        shutil.copymode(tape, draft)
        kept = _kept(tape)
        os.replace(draft, tape)
    except OSError as error:
        raise RunError(f"tape {path} cannot be mended: {error}; see to its disk, or copy the tape elsewhere") from None
    finally:
        draft.unlink(missing_ok=True)
    return kept


def _copy_sound_rows(tape: Path, draft: Path) -> None:
    with opened_broken(tape, alone=True) as old, closing(sqlite3.connect(draft)) as new, new:
        for table, columns in COLUMNS.items():
            marks = ", ".join("?" * len([*columns.split(","), "seal"]))
            # A broken file can give one row twice.
            new.executemany(
                f"INSERT OR IGNORE INTO {table} VALUES ({marks})",
                (row for row in read_rows(old, table) if is_sound(row)),
            )


def _kept(tape: Path) -> Path:
    """Gives a tape a second name, which no file has; what lies beside it, and is not the new tape's, goes there too."""
    endings = chain([".damaged"], (f".damaged-{n}" for n in count(2)))
    names = (tape.with_name(tape.name + ending) for ending in endings)
    kept = next(name for name in names if not name.exists() and not log_of(name).exists())
    os.link(tape, kept)
    for ending in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.replace(f"{tape}{ending}", f"{kept}{ending}")
    return kept
