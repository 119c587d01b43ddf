"""Which runs may go on, what is said of those that may not, and what a folder looks like before it goes on."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import BadInputError
from cdcda_flower.runs.folder import PhaseCost, RunFolder
from cdcda_flower.runs.identity import run_identity
from cdcda_flower.runs.ledger import Ledger, LedgerReader
from cdcda_flower.runs.progress import Progress
from experiments.launching import resuming
from experiments.launching.resuming import reopen, resumable
from experiments.launching.staging import find_app
from experiments.launching.stale_runs import launcher_of
from experiments.settings import Layer, config_of
from repository import ROOT

APP = find_app()
HOLDER = """import sys
from pathlib import Path
from cdcda_flower.runs.folder import RunFolder
from experiments.launching.stale_runs import launcher_of
with launcher_of(RunFolder(Path(sys.argv[1])), Path("elsewhere")):
    pass
"""
POLICY = "class Own:\n    def select(self, history, *, seed):\n        return history\n"


@pytest.fixture
def stopped(tmp_path: Path) -> RunFolder:
    """A run with a policy and a table of its own that was interrupted while it trained."""
    (tmp_path / "own.py").write_text(POLICY, encoding="utf-8")
    (tmp_path / "mine.csv").write_text("user,input,output\n", encoding="utf-8")
    values = {"share-policy": "own:Own", "data": "mine.csv", "columns": "user=user,input=input,output=output"}
    config = config_of([Layer(values=values, folder=tmp_path)], runs_dir=tmp_path / "runs", name="first")
    folder = RunFolder.create(tmp_path / "runs", "first")
    folder.update(
        **run_identity(config, APP.root),
        status="interrupted",
        device_executor="fleet",
        prepared="/where/the/data/are",
        started="2026-11-28T10:00:00+00:00",
        finished="2026-11-28T10:30:00+00:00",
        phases=(PhaseCost(name="share", seconds=2.0, tokens=0),),
    )
    return folder


def test_a_run_that_finished_goes_on_only_where_somebody_failed(stopped: RunFolder) -> None:
    stopped.update(status="finished", error="1 of 4 users failed (B)", error_kind="run")
    assert resumable(stopped, APP, ["on-device-failure=record"]).on_device_failure == "record"
    stopped.update(error="", error_kind="")
    with pytest.raises(BadInputError, match="it has finished and nothing is left to do"):
        resumable(stopped, APP)


def test_a_run_that_stopped_goes_on_with_its_config_and_its_executor(stopped: RunFolder) -> None:
    config = resumable(stopped, APP)
    asked = RunConfig.from_flwr(stopped.manifest().config)
    assert config.device_executor == "fleet"
    assert config.model_copy(update={"device_executor": asked.device_executor}) == asked


def test_a_moved_folder_goes_on_where_it_is(stopped: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    moved = RunFolder(stopped.path.rename(tmp_path / "elsewhere" / "second"))
    config = resumable(moved, APP)
    assert (config.runs_dir, config.run_name) == (str(tmp_path / "elsewhere"), "second")


def test_a_budget_and_a_tape_may_change_and_nothing_that_changes_a_result(stopped: RunFolder, tmp_path: Path) -> None:
    config = resumable(stopped, APP, ["budget-calls=7", f"tape={tmp_path}/t.sqlite"])
    assert (config.budget_calls, config.tape) == (7, f"{tmp_path}/t.sqlite")
    with pytest.raises(
        BadInputError, match=r"run first cannot be resumed: --set changes a key that can change a result"
    ):
        resumable(stopped, APP, ["k=7"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"status": "finished"}, "it has finished and nothing is left to do; `cdcda report first`"),
        ({"status": "running"}, r'its status is "running", and no `cdcda run` carries it'),
        ({"status": "failed", "device_executor": ""}, r'its status is "failed", and no `cdcda run` carries it'),
        ({"status": "created", "config": {}}, "it stopped before anything had begun"),
        ({"source_digest": "f" * 64}, "the code has changed since .digest ffffffffffff."),
        ({"versions": {"torch": "1.0"}}, r"installed versions have changed since \(torch 1.0 to "),
        ({"versions": {"nothing": "1.0"}}, "nothing 1.0 to none"),
    ],
)
def test_what_stands_against_it_is_said(stopped: RunFolder, changes: Mapping[str, Any], said: str) -> None:
    stopped.update(**changes)
    with pytest.raises(BadInputError, match=said):
        resumable(stopped, APP)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [("own.py", POLICY + "\n", "a plug-in's code has changed"), ("mine.csv", "user,input\n", "mine.csv has changed")],
)
def test_changed_files_are_said(stopped: RunFolder, tmp_path: Path, file: str, text: str, said: str) -> None:
    (tmp_path / file).write_text(text, encoding="utf-8")
    os.utime(tmp_path / file, ns=(1, 1))
    with pytest.raises(BadInputError, match=said):
        resumable(stopped, APP)


def test_a_run_that_goes_on_now_is_left_alone(
    stopped: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resuming, "_CLEARING_S", 0.0)
    with launcher_of(stopped, tmp_path), pytest.raises(BadInputError, match="it goes on at this moment"):
        resumable(stopped, APP)


def test_what_may_change_stands_in_the_manifest_for_the_next_time(stopped: RunFolder) -> None:
    reopen(stopped, resumable(stopped, APP, ["budget-calls=7", "egress-bytes=9"]))
    manifest = stopped.manifest()
    assert (manifest.config["budget-calls"], manifest.config["egress-bytes"]) == (7, 9)
    assert manifest.config["device-executor"] == "auto"


def test_only_one_launcher_holds_a_run(stopped: RunFolder, tmp_path: Path) -> None:
    other = [sys.executable, "-c", HOLDER, str(stopped.path)]
    with launcher_of(stopped, tmp_path):
        done = subprocess.run(other, capture_output=True, text=True, cwd=ROOT, check=False)
        assert "run first goes on at this moment, in another process" in done.stderr
        assert (stopped.path / ".launcher").read_text(encoding="utf-8") == str(tmp_path)


def test_a_folder_that_is_reopened_keeps_what_was_paid_and_begins_a_new_ledger(stopped: RunFolder) -> None:
    with Ledger(stopped.ledger_path) as ledger:
        ledger.add_lengths({"A": 3})
    (stopped.logs / "flwr.log").write_text("of the first attempt", encoding="utf-8")
    clock = iter([100.0, 130.0])
    progress = Progress(stopped.progress_path, clock=lambda: next(clock))
    progress.start("personalize", 4)
    progress.advance(4, 500)
    reopen(stopped, resumable(stopped, APP))
    manifest = stopped.manifest()
    assert (manifest.status, manifest.error, manifest.finished) == ("created", "", "")
    assert [pause.stopped for pause in manifest.pauses] == ["2026-11-28T10:30:00+00:00"]
    assert [(cost.name, cost.seconds, cost.tokens) for cost in manifest.phases] == [
        ("share", 2.0, 0),
        ("personalize", 30.0, 500),
    ]
    assert LedgerReader(stopped.ledger_path).lengths() == {}
    assert not stopped.progress_path.exists()
    assert (stopped.logs / "flwr-1.log").read_text(encoding="utf-8") == "of the first attempt"


def test_a_phase_that_was_noted_is_not_added_again(stopped: RunFolder) -> None:
    progress = Progress(stopped.progress_path)
    progress.start("share", 4)
    progress.end()
    reopen(stopped, resumable(stopped, APP))
    assert [cost.name for cost in stopped.manifest().phases] == ["share"]
    assert stopped.manifest().phases[0].seconds == 2.0


def test_minutes_leave_the_pauses_out(stopped: RunFolder) -> None:
    reopen(stopped, resumable(stopped, APP))
    assert stopped.manifest().minutes is None
    pause = {"stopped": "2026-11-28T10:30:00+00:00", "resumed": "2026-11-29T08:00:00+00:00"}
    stopped.update(pauses=[pause], finished="2026-11-29T08:10:00+00:00")
    assert stopped.manifest().minutes == 40.0
