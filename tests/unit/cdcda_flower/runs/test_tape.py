"""The tape's file: what comes back, what is found damaged, who may write at once."""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from itertools import cycle
from pathlib import Path
from typing import get_args

import pytest

from cdcda_flower.errors import DataError, RunError
from cdcda_flower.runs import tape as tapes
from cdcda_flower.runs.tape import DamagedTapeError, Tape, TapedCall, TapedModel
from cdcda_flower.runs.tape_audit import audit, tape_stats
from cdcda_flower.runs.tape_mend import fold, mend
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
    assert audit(path).rows == {"models": 1, "calls": 150, "scores": 0}


def test_what_was_added_outlives_a_process_that_never_closed(path: Path) -> None:
    tape = Tape(path, writable=True)
    tape.__enter__()
    tape.add_call("late", CLOUD, call_of("x"))
    with Tape(path, writable=False) as reader:
        assert len(reader.calls(["late"])) == 1
    tape.__exit__(None, None, None)


def test_a_tape_in_memory_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Tape(None, writable=True) as tape:
        tape.add_call("a", CLOUD, call_of("x"))
        assert len(tape.calls(["a"])) == 1
    assert not any(tmp_path.iterdir())


def test_stats_count_by_model(path: Path) -> None:
    cloud, judge = tape_stats(path)
    assert (cloud.model, cloud.calls, cloud.samples, cloud.tokens, cloud.scores) == (CLOUD, 20, 40, 60, 0)
    assert (judge.model, judge.calls, judge.samples, judge.tokens, judge.scores) == (JUDGE, 0, 0, 0, 10)


def _read_all(path: Path) -> None:
    with Tape(path, writable=True) as tape:
        tape.calls([f"call-{n}" for n in range(100)])
        tape.scores([f"score-{n}" for n in range(100)])
        tape.models()


def _change(statement: str) -> Callable[[Path], None]:
    def act(path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(statement)

    return act


def _flip(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    place = whole.index(f"{HEARD} 7".encode())
    whole[place] ^= 0x80  # no UTF-8 any more
    path.write_bytes(whole)


@pytest.mark.parametrize(
    ("change", "table"),
    [
        (_flip, "calls"),
        (_change("UPDATE calls SET samples = '[\"other\"]' WHERE key = 'call-7'"), "calls"),
        (_change("UPDATE calls SET tokens = 4 WHERE key = 'call-7'"), "calls"),
        (_change("UPDATE calls SET key = 'call-70' WHERE key = 'call-7'"), "calls"),
        (_change("UPDATE calls SET samples = x'00ff' WHERE key = 'call-7'"), "calls"),
        (_change("UPDATE scores SET value = 0.5 WHERE key = 'score-7'"), "scores"),
        (_change("UPDATE models SET digest = 'd2' WHERE digest = 'd1'"), "models"),
    ],
)
def test_a_changed_row_is_found_named_and_left_out_of_a_new_tape(
    path: Path, change: Callable[[Path], None], table: str
) -> None:
    assert not audit(path).damaged
    change(path)
    found = audit(path)
    assert {name: count for name, count in found.changed.items() if count} == {table: 1}
    with pytest.raises(DamagedTapeError, match="cdcda tape verify") as caught:
        _read_all(path)
    assert HEARD not in str(caught.value)
    before = path.read_bytes()
    assert mend(path).read_bytes() == before
    after = audit(path)
    assert (after.damaged, after.rows[table], after.sound) == (False, found.rows[table] - 1, found.sound)


@pytest.mark.parametrize("left", [0.0, 0.001, 0.01, 0.4, 0.75, 0.99])
def test_a_file_that_was_cut_off_is_never_read_as_a_whole_one(path: Path, left: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * left)])
    with pytest.raises(DataError, match=r"is no tape, or nothing is left of it|is damaged"):
        _read_all(path)
    if left > 0.001:
        found = audit(path)
        assert found.structure
        if found.sound:
            mend(path)
            assert (audit(path).damaged, audit(path).sound) == (False, found.sound)
    else:
        with pytest.raises(DataError, match="is no tape, or nothing is left of it"):
            audit(path)


def test_a_file_of_another_kind_or_version_is_refused_and_left_alone(tmp_path: Path, path: Path) -> None:
    text, ledger = tmp_path / "a.txt", tmp_path / "ledger.sqlite"
    text.write_text("hello " * 1000)
    with closing(sqlite3.connect(ledger)) as connection, connection:
        connection.execute("CREATE TABLE t (a)")
    _change("PRAGMA user_version = 9")(path)
    for file, said in ((text, "is no tape"), (ledger, "is no tape"), (path, "has version 9 and this release reads 3")):
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


def test_answers_whose_model_is_lost_are_counted(path: Path) -> None:
    assert not any(audit(path).nameless.values())
    _change("DELETE FROM models WHERE role = 'cloud'")(path)
    found = audit(path)
    assert (found.damaged, found.nameless) == (False, {"models": 0, "calls": 20, "scores": 0})


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A tape whose 400 calls fill many pages."""
    path = tmp_path / "tape.sqlite"
    with Tape(path, writable=True) as tape:
        tape.add_model(CLOUD)
        for n in range(400):
            tape.add_call(f"call-{n:03}", CLOUD, call_of(f"{n:03} {HEARD}" * 20))
    return path


def _scramble(path: Path, first: float, last: float) -> None:
    whole = bytearray(path.read_bytes())
    start, end = (int(len(whole) * part) for part in (first, last))
    whole[start:end] = bytes(n % 251 for n in range(start, end))
    path.write_bytes(whole)


@pytest.mark.parametrize(("first", "last"), [(0.3, 0.4), (0.9, 1.0)])
def test_what_can_be_read_of_a_broken_file_is_saved_and_the_file_is_kept(many: Path, first: float, last: float) -> None:
    _scramble(many, first, last)
    many.chmod(0o600)
    damaged, found = many.read_bytes(), audit(many)
    assert found.structure
    assert 300 < found.sound <= 401
    assert mend(many) == many.with_name("tape.sqlite.damaged")
    assert many.with_name("tape.sqlite.damaged").read_bytes() == damaged
    assert (audit(many).damaged, audit(many).sound) == (False, found.sound)
    assert many.stat().st_mode & 0o777 == 0o600
    assert sorted(file.name for file in many.parent.iterdir()) == ["tape.sqlite", "tape.sqlite.damaged"]
    with Tape(many, writable=False) as tape:
        assert tape.models() == (CLOUD,)
        assert tape.calls(["call-000"])["call-000"] == call_of(f"000 {HEARD}" * 20)


def test_a_file_that_lost_its_last_bytes_loses_at_most_the_rows_that_stood_there(many: Path) -> None:
    many.write_bytes(many.read_bytes()[:-100])
    found = audit(many)
    assert (found.structure, found.sound >= 395) == ("its end is missing", True)
    mend(many)
    assert (audit(many).damaged, audit(many).sound) == (False, found.sound)


def test_what_was_kept_once_is_never_overwritten(many: Path) -> None:
    for name in ("tape.sqlite.damaged", "tape.sqlite.damaged-2", "tape.sqlite.damaged-3"):
        _change("UPDATE calls SET tokens = 4 WHERE rowid = (SELECT max(rowid) FROM calls)")(many)
        assert mend(many).name == name
    assert audit(many).sound == 398


def test_a_tape_that_a_run_uses_is_not_replaced(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Tape(many, writable=True) as tape:
        tape.add_call("late", CLOUD, call_of("x"))
        monkeypatch.setattr(tapes, "_WAIT_S", 0.1)
        with pytest.raises(RunError, match="was in use by another program"):
            mend(many)
        assert tape.calls(["late"])
    assert [file.name for file in many.parent.iterdir()] == ["tape.sqlite"]


def _killed(path: Path, to: Path) -> Path:
    """Copies a tape and its log as a run that was killed would leave them."""
    with Tape(path, writable=True) as tape:
        tape.add_call("late", CLOUD, call_of("x"))
        to.mkdir()
        for file in path.parent.glob("tape.sqlite*"):
            if not file.name.endswith("-shm"):
                (to / file.name).write_bytes(file.read_bytes())
    return to / "tape.sqlite"


def test_what_a_killed_run_left_beside_the_tape_is_folded_in(path: Path, tmp_path: Path) -> None:
    left = _killed(path, tmp_path / "killed")
    assert left.with_name("tape.sqlite-wal").stat().st_size
    fold(left)
    assert [file.name for file in left.parent.iterdir()] == ["tape.sqlite"]
    assert audit(left).rows["calls"] == 21


def test_a_log_in_use_stays_and_nothing_is_made_where_no_tape_is(path: Path, tmp_path: Path) -> None:
    with Tape(path, writable=True) as tape:
        tape.add_call("late", CLOUD, call_of("x"))
        fold(path)
        tape.add_call("later", CLOUD, call_of("x"))
        assert path.with_name("tape.sqlite-wal").exists()
    assert audit(path).rows["calls"] == 22
    fold(tmp_path / "none.sqlite")
    assert not (tmp_path / "none.sqlite").exists()


def test_what_stands_in_the_log_of_a_broken_tape_is_saved_too(many: Path, tmp_path: Path) -> None:
    left = _killed(many, tmp_path / "killed")
    left.write_bytes(left.read_bytes()[:-100])
    fold(left)
    mend(left)
    assert not audit(left).damaged
    with Tape(left, writable=False) as tape:
        assert tape.calls(["late"])
    assert {file.name for file in left.parent.iterdir()} == {"tape.sqlite", "tape.sqlite.damaged"}
