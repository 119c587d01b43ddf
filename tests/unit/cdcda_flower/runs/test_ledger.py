"""The ledger gives back what was added, survives a crash, and readers never write."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from cdcda_flower.errors import DataError, RunError
from cdcda_flower.runs import ledger as ledger_module
from cdcda_flower.runs.ledger import Egress, Ledger, LedgerReader, begin_anew
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

ORIGIN = Provenance(user_id="u1", source_id="i1", generator="echo", prompt_digest="d", seed=(1 << 63) - 1, sample=0)
UPLOAD = Upload(
    user_id="u1", policy="ratio", history_size=9, query_count=2, examples=(Example(id="i1", query="q", response="r"),)
)
PAIR = SyntheticPair(id="u1/i1/0", query="x ü", response="y", provenance=ORIGIN)
TRAINING = TrainingReport(
    adapter=AdapterRef(user_id="u1", method="cdcda", trained_as="direct-ft", base_digest="b", weights_digest="w"),
    private=9,
    synthetic=1,
    dropped=2,
    stats=TrainingStats(steps=4, tokens=100, first_loss=2.0, last_loss=1.0, seconds=0.5),
)


def _result(method: str, adapter_of: str | None) -> UserResult:
    return UserResult(
        user_id="u1",
        method=method,
        adapter_of=adapter_of,
        queries=2,
        unparsed=0,
        sums={"n": 2.0, "abs": 1.0},
        seconds=0.1,
    )


def test_what_was_added_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    results = (_result("device", None), _result("cdcda", "u1"), _result("cdcda", "u2"))
    with Ledger(path) as ledger:
        ledger.add_upload(UPLOAD, 321)
        ledger.add_pairs([PAIR])
        ledger.add_unparsable([Unparsable(id="u1/i1/1", reason="no-input", provenance=ORIGIN)])
        ledger.add_verdicts([Verdict(pair_id=PAIR.id, filter="length", keep=False, score=3.0, reason="too long")])
        ledger.add_selected("u1", [PAIR.id])
        ledger.add_training(TRAINING)
        for result in results:
            ledger.add_result(result)
        ledger.add_failure(UserFailure(user_id="u3", phase="share", reason="no reply"))
    reader = LedgerReader(path)
    (upload,) = reader.uploads()
    assert (upload.shared, upload.history_size, upload.bytes_up) == (1, 9, 321)
    assert reader.shared() == {("u1", "i1"): UPLOAD.examples[0]}
    assert reader.pairs() == (PAIR,)
    assert reader.unparsable()[0].provenance == ORIGIN
    assert reader.verdicts() == (Verdict(pair_id=PAIR.id, filter="length", keep=False, score=3.0, reason="too long"),)
    assert reader.selected() == {PAIR.id: "u1"}
    assert reader.trainings() == (TRAINING,)
    assert reader.results() == results
    assert reader.failures() == (UserFailure(user_id="u3", phase="share", reason="no reply"),)


def test_empty_batches_add_nothing(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.add_pairs([])
        ledger.add_selected("u1", [])
    assert LedgerReader(tmp_path / "ledger.sqlite").pairs() == ()


def test_nothing_is_lost_when_the_writer_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    code = (
        "import os, sys, pathlib\n"
        "from cdcda_flower.runs.ledger import Ledger\n"
        "from cdcda_flower.types import UserFailure\n"
        "with Ledger(pathlib.Path(sys.argv[1])) as ledger:\n"
        "    ledger.add_failure(UserFailure(user_id='u', phase='p', reason='r'))\n"
        "    os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 9
    assert [failure.user_id for failure in LedgerReader(path).failures()] == ["u"]


def test_a_reader_reads_while_the_writer_writes(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.add_upload(UPLOAD, 1)
        assert len(LedgerReader(tmp_path / "ledger.sqlite").uploads()) == 1
        ledger.add_failure(UserFailure(user_id="u", phase="p", reason="r"))


@pytest.mark.parametrize("adapter_of", ["u1", None])
def test_a_second_result_of_the_same_answer_is_refused(tmp_path: Path, adapter_of: str | None) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.add_result(_result("cdcda", adapter_of))
        with pytest.raises(sqlite3.IntegrityError):
            ledger.add_result(_result("cdcda", adapter_of))


def test_a_closed_ledger_is_one_file(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.sqlite"]


def test_reading_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ledger"):
        LedgerReader(tmp_path / "ledger.sqlite").pairs()
    assert not any(tmp_path.iterdir())


def test_a_ledger_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.add_training(TRAINING)
    assert LedgerReader(path).trainings() == (TRAINING,)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 1")
    with pytest.raises(DataError, match=r"is a ledger of version 1, this is 3; read it with the version of the code"):
        LedgerReader(path).trainings()


def test_a_ledger_that_another_program_holds_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "_WAIT_S", 0.05)
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger, closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RunError, match=r"ledger .*ledger\.sqlite cannot be written: database is locked; end the"):
            ledger.add_lengths({"A": 3})
        other.rollback()
        ledger.add_lengths({"A": 3})
    assert LedgerReader(path).lengths() == {"A": 3}


def test_a_ledger_on_a_full_disk_says_so_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.add_lengths({"A": 3})
        assert ledger._connection is not None
        (pages,) = ledger._connection.execute("PRAGMA page_count").fetchone()
        ledger._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(RunError, match=r"cannot be written: .*full; free some space, and resume the run"):
            ledger.add_lengths({f"user-{number}": number for number in range(5000)})
    assert LedgerReader(path).lengths() == {"A": 3}


@pytest.mark.parametrize(
    "damage", [b"no SQLite file at all, and long enough to be one" * 40, b"SQLite format 3\0" * 300]
)
def test_a_damaged_ledger_is_not_written_over(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(damage)
    with pytest.raises(RunError, match="nothing in it is needed to go on, and resume the run"):
        Ledger(path).__enter__()
    assert path.read_bytes() == damage


def test_a_ledger_that_begins_anew_keeps_what_left_the_devices(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    begin_anew(path)
    assert not path.exists()
    sent = Egress(user_id="A", at="2026-11-28T10:00:00+00:00", phase="share", reply="Upload", bytes=12)
    with Ledger(path) as ledger:
        ledger.add_lengths({"A": 3})
        ledger.add_egress([sent])
    begin_anew(path)
    assert (LedgerReader(path).lengths(), LedgerReader(path).egress()) == ({}, (sent,))
    path.write_bytes(b"damaged" * 1000)
    begin_anew(path)
    assert not path.exists()


def test_a_row_that_is_there_already_is_no_matter_of_the_disk(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.add_lengths({"A": 3})
        with pytest.raises(sqlite3.IntegrityError):
            ledger.add_lengths({"A": 3})
