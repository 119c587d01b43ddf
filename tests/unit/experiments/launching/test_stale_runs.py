"""Whether a run's launcher lives, and what is done with what a killed one left."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdcda_flower.errors import BadInputError
from cdcda_flower.runs.folder import RunFolder
from experiments.launching.stale_runs import clear, launcher_of, launcher_state, only_one
from repository import ROOT

# A launcher that holds a run's folder, says so, and waits to be killed.
LAUNCHER = """import sys, time
from pathlib import Path
from cdcda_flower.runs.folder import RunFolder
from experiments.launching.stale_runs import launcher_of
with launcher_of(RunFolder(Path(sys.argv[1])), Path(sys.argv[2])):
    print("holding", flush=True)
    time.sleep(600)
"""
SLEEP = "import time; print('ready', flush=True); time.sleep(600)"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder.create(tmp_path / "runs", "first")
    made.update(status="running")
    return made


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "cdcda-scratch" / "home").mkdir(parents=True)
    return tmp_path / "cdcda-scratch"


@pytest.fixture
def launcher(folder: RunFolder, scratch: Path) -> Iterator[subprocess.Popen[str]]:
    process = _start([LAUNCHER, str(folder.path), str(scratch)], "holding\n")
    yield process
    process.kill()
    process.communicate()


def _start(arguments: list[str], word: str, **environment: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", *arguments],
        text=True,
        stdout=subprocess.PIPE,
        env={**os.environ, **environment},
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == word
    return process


def test_a_launcher_is_alive_until_it_ends_and_then_leaves_no_word(folder: RunFolder, scratch: Path) -> None:
    assert launcher_state(folder) == "unknown"
    with launcher_of(folder, scratch):
        assert launcher_state(folder) == "alive"
    assert launcher_state(folder) == "unknown"


def test_a_living_run_is_left_alone(folder: RunFolder, launcher: subprocess.Popen[str]) -> None:
    assert launcher_state(folder) == "alive"
    assert clear(folder) == 0
    assert folder.manifest().status == "running"
    assert launcher.poll() is None


def test_a_run_of_which_nothing_is_known_is_left_alone(folder: RunFolder) -> None:
    assert clear(folder) == 0
    assert folder.manifest().status == "running"


def test_what_a_killed_launcher_left_is_ended_and_said(
    folder: RunFolder, scratch: Path, launcher: subprocess.Popen[str]
) -> None:
    ours = _start([SLEEP], "ready\n", FLWR_HOME=str(scratch / "home"))
    stranger = _start([SLEEP], "ready\n", FLWR_HOME="another")
    launcher.kill()
    launcher.wait()
    assert launcher_state(folder) == "gone"
    assert clear(folder) == 1
    ours.wait(5)  # raises where it lives
    assert stranger.poll() is None
    assert not scratch.exists()
    assert (folder.manifest().status, folder.manifest().error) == ("interrupted", "its launcher was killed")
    assert launcher_state(folder) == "unknown"
    for process in (ours, stranger):
        process.kill()
        process.communicate()


def test_a_run_that_was_done_before_its_launcher_was_killed_stays_finished(
    folder: RunFolder, launcher: subprocess.Popen[str]
) -> None:
    folder.update(status="finished")
    launcher.kill()
    launcher.wait()
    clear(folder)
    assert folder.manifest().status == "finished"


def test_only_one_command_holds_a_lock_at_a_time(tmp_path: Path) -> None:
    lock = tmp_path / "runs" / ".sweep.lock"
    refused = pytest.raises(BadInputError, match=r"sweep 'a' runs already.*--runs-dir")
    with only_one(lock, "sweep 'a'"), refused, only_one(lock, "sweep 'a'"):
        pass
    with only_one(lock, "sweep 'a'"):
        pass


def test_a_place_that_cannot_be_written_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInputError, match="--runs-dir"), only_one(tmp_path / "file" / "lock", "sweep"):
        pass
