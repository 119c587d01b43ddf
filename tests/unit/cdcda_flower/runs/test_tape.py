"""The tape's file: what comes back, what is found damaged, who may write at once."""

import logging
import sqlite3
import threading
from contextlib import closing
from itertools import cycle
from pathlib import Path
from typing import get_args

import pytest

from cdcda_flower.errors import DataError, RunError
from cdcda_flower.runs import tape as tapes
from cdcda_flower.runs.tape import DamagedTapeError, Tape, TapedCall, TapedModel, _explanation, export
from cdcda_flower.types import Cut, Sample

CLOUD = TapedModel(role="cloud", maker="transformers", asked="qwen", name="qwen", digest="d1")
JUDGE = TapedModel(role="consistency", maker="nli", asked="wanli", name="wanli", digest="")
HEARD = "a sailor's secret"


def call_of(*texts: str) -> TapedCall:
    """Returns a call of which the model ended the first sample, and something else the others."""
    ends = cycle(get_args(Cut))
    return TapedCall(samples=tuple(Sample(text=text, cut=next(ends)) for text in texts), tokens=3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A tape with 20 calls and 10 scores."""
    path = tmp_path / "cache" / "tape.sqlite"
    with Tape(path, writable=True) as tape:
        tape.add_model(CLOUD)
        tape.add_model(JUDGE)
        for n in range(20):
            tape.add_call(f"call-{n}", CLOUD, call_of(f"{HEARD} {n}", "Ü\n2"))
        tape.add_scores(JUDGE, {f"score-{n}": n / 7 for n in range(10)})
    return path


def test_what_was_recorded_comes_back_and_nothing_else(path: Path) -> None:
    with Tape(path, writable=False) as tape:
        assert tape.models() == (CLOUD, JUDGE)
        assert tape.calls(["call-7", "call-99"]) == {"call-7": call_of(f"{HEARD} 7", "Ü\n2")}
        assert tape.scores(["score-1", "call-1"]) == {"score-1": 1 / 7}
        assert tape.calls([]) == {}
        with pytest.raises(RunError, match="cannot be read or written: attempt to write a readonly database"):
            tape.add_call("new", CLOUD, call_of("x"))
    assert HEARD not in repr(call_of(HEARD))


def test_a_closed_tape_is_one_file_that_may_lie_on_a_read_only_disk(path: Path) -> None:
    assert [file.name for file in path.parent.iterdir()] == ["tape.sqlite"]
    path.chmod(0o400)
    path.parent.chmod(0o500)
    try:
        with Tape(path, writable=False) as tape:
            assert len(tape.calls(["call-1"])) == 1
    finally:
        path.parent.chmod(0o700)


def test_more_samples_replace_fewer_and_fewer_never_more(path: Path) -> None:
    with Tape(path, writable=True) as tape:
        for samples in (("a", "b", "c"), ("x",), ("d", "e", "f")):
            tape.add_call("call-1", CLOUD, call_of(*samples))
        assert tape.calls(["call-1"])["call-1"] == call_of("a", "b", "c")


def test_two_runs_may_record_into_one_tape_at_once(tmp_path: Path) -> None:
    path = tmp_path / "tape.sqlite"

    def record(name: str) -> None:
        with Tape(path, writable=True) as tape:
            tape.add_model(CLOUD)
            for n in range(50):
                tape.add_call(f"{name}-{n}", CLOUD, call_of(name))

    threads = [threading.Thread(target=record, args=(name,)) for name in ("one", "two", "three")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Tape(path, writable=False) as tape:
        assert [(one.model, one.calls) for one in tape.stats()] == [(CLOUD, 150)]


def test_what_was_added_outlives_a_process_that_never_closed(path: Path) -> None:
    tape = Tape(path, writable=True)
    tape.__enter__()
    tape.add_call("late", CLOUD, call_of("x"))
    with Tape(path, writable=False) as reader:
        assert len(reader.calls(["late"])) == 1
    tape.__exit__(None, None, None)


def test_stats_count_by_model(path: Path) -> None:
    with Tape(path, writable=False) as tape:
        cloud, judge = tape.stats()
    assert (cloud.model, cloud.calls, cloud.samples, cloud.tokens, cloud.scores) == (CLOUD, 20, 40, 60, 0)
    assert (judge.model, judge.calls, judge.samples, judge.tokens, judge.scores) == (JUDGE, 0, 0, 0, 10)


def _scramble(path: Path, first: float, last: float) -> bytes:
    """Overwrites a part of a file; returns what it holds then."""
    whole = bytearray(path.read_bytes())
    start, end = (int(len(whole) * part) for part in (first, last))
    whole[start:end] = bytes(n % 251 for n in range(start, end))
    path.write_bytes(whole)
    return bytes(whole)


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A tape whose 400 calls fill many pages."""
    path = tmp_path / "tape.sqlite"
    with Tape(path, writable=True) as tape:
        tape.add_model(CLOUD)
        for n in range(400):
            tape.add_call(f"call-{n:03}", CLOUD, call_of(f"{n:03} {HEARD}" * 20))
    return path


@pytest.mark.parametrize(("first", "last"), [(0.3, 0.4), (0.9, 1.0)])
def test_a_damaged_tape_is_moved_aside_and_a_new_one_begins(
    many: Path, first: float, last: float, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = _scramble(many, first, last)
    with caplog.at_level(logging.WARNING), Tape(many, writable=True) as tape:
        assert tape.calls(["call-000"]) == {}
        assert tape.damaged is not None
        tape.add_model(CLOUD)
        tape.add_call("new", CLOUD, call_of("x"))
    (kept,) = many.parent.glob("tape.sqlite.damaged-*")
    assert (kept, kept.read_bytes()) == (tape.damaged, damaged)
    assert str(kept) in caplog.text
    assert HEARD not in caplog.text
    with Tape(many, writable=False) as tape:
        assert tape.calls(["new"]) == {"new": call_of("x")}


@pytest.mark.parametrize("left", [0.0, 0.001, 0.01, 0.4, 0.75, 0.99])
def test_a_replay_refuses_a_file_that_was_cut_off_and_leaves_it_alone(many: Path, left: float) -> None:
    whole = many.read_bytes()
    cut = whole[: int(len(whole) * left)]
    many.write_bytes(cut)
    with (
        pytest.raises(DataError, match=r"is no tape, or nothing is left of it|is damaged") as caught,
        Tape(many, writable=False),
    ):
        pass
    assert HEARD not in str(caught.value)
    assert [file.name for file in many.parent.iterdir()] == ["tape.sqlite"]
    assert many.read_bytes() == cut


def test_only_what_sqlite_calls_corrupt_is_damaged(path: Path) -> None:
    """Whatever else goes wrong, such as two processes that change the log at once, must not move a good tape aside."""
    said = {}
    for code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_ERROR):
        error = sqlite3.OperationalError("no")
        error.sqlite_errorcode = code
        said[code] = isinstance(_explanation(path, error), DamagedTapeError)
    assert [code for code, is_damaged in said.items() if is_damaged] == [sqlite3.SQLITE_CORRUPT]


def test_a_tape_that_another_run_has_begun_in_its_place_stays(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _scramble(many, 0.3, 0.4)
    opened = tapes._open

    def beaten(path: Path | None, *, writable: bool) -> sqlite3.Connection:
        """The other run moves the file aside while this one looks at it."""
        monkeypatch.setattr(tapes, "_open", opened)
        with Tape(many, writable=True) as other:
            other.add_call("paid", CLOUD, call_of("x"))
        raise DamagedTapeError("damaged")

    monkeypatch.setattr(tapes, "_open", beaten)
    with Tape(many, writable=True) as tape:
        assert tape.calls(["paid"]) == {"paid": call_of("x")}
        assert tape.damaged is None
    assert len(list(many.parent.glob("*.damaged-*"))) == 1


def test_answers_whose_model_is_lost_are_exported_too(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM models")
    rows = list(export(path))
    assert len(rows) == 30
    assert {row["model"] for row in rows} == {None}


def test_a_tape_is_exported_row_by_row(path: Path) -> None:
    rows = list(export(path))
    assert len(rows) == 30
    assert rows[7]["key"] == "call-7"
    assert rows[7]["samples"] == [{"text": f"{HEARD} 7", "cut": ""}, {"text": "Ü\n2", "cut": "limit"}]
    assert (rows[21]["key"], rows[21]["model"], rows[21]["score"]) == ("score-1", "wanli", 1 / 7)


def test_of_a_damaged_tape_what_stands_before_the_damage_is_exported(many: Path) -> None:
    _scramble(many, 0.6, 0.7)
    found: list[object] = []

    def read_all() -> None:
        for row in export(many):
            found.append(row["key"])

    with pytest.raises(DamagedTapeError, match="cdcda tape export"):
        read_all()
    assert found[:3] == ["call-000", "call-001", "call-002"]


def test_a_file_of_another_kind_or_version_is_refused_and_left_alone(tmp_path: Path, path: Path) -> None:
    text, ledger = tmp_path / "a.txt", tmp_path / "ledger.sqlite"
    text.write_text("hello " * 1000)
    with closing(sqlite3.connect(ledger)) as connection, connection:
        connection.execute("CREATE TABLE t (a)")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA user_version = 9")
    for file, said in ((text, "is no tape"), (ledger, "is no tape"), (path, "has version 9 and this release reads 4")):
        before = file.read_bytes()
        for writable in (False, True):
            with pytest.raises(DataError, match=said) as caught, Tape(file, writable=writable):
                pass
            assert str(file) in str(caught.value)
        assert file.read_bytes() == before


def test_a_tape_that_is_not_there_is_made_to_record_and_missed_to_replay(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match=r"none.sqlite does not exist; a run with tape-mode"),
        Tape(tmp_path / "none.sqlite", writable=False),
    ):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be made"), Tape(tmp_path / "file" / "tape", writable=True):
        pass
    with pytest.raises(DataError, match="is a folder"), Tape(tmp_path, writable=True):
        pass


def test_a_full_disk_is_said_as_one_and_loses_nothing(path: Path) -> None:
    with Tape(path, writable=True) as tape:
        assert tape._connection is not None
        (pages,) = tape._connection.execute("PRAGMA page_count").fetchone()
        tape._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(RunError, match="cannot be read or written: database or disk is full; see to its disk"):
            tape.add_call("large", CLOUD, call_of("x" * 100_000))
        assert len(tape.calls([f"call-{n}" for n in range(20)])) == 20


def test_a_copy_made_after_the_run_is_whole_though_somebody_reads(path: Path, tmp_path: Path) -> None:
    with Tape(path, writable=False), Tape(path, writable=True) as tape:
        tape.add_call("late", CLOUD, call_of("x"))
    copy = tmp_path / "copy.sqlite"
    copy.write_bytes(path.read_bytes())
    with Tape(copy, writable=False) as tape:
        assert tape.calls(["late"])
