"""The guard beside a launcher: whatever kills the launcher, its processes end, its scratch folder goes, its run says so."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from cdcda_flower.runs.folder import RunFolder
from experiments.launching.orphans import no_orphans
from repository import ROOT

# A launcher with one process, as `launch` has them, and a run's folder or none; it says the process's id and waits.
LAUNCHER = """import os, subprocess, sys, time
from pathlib import Path
from cdcda_flower.runs.folder import RunFolder
from experiments.launching.orphans import no_orphans
from experiments.launching.stale_runs import launcher_of
scratch, run, end = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
with no_orphans(scratch) as watch:
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"],
        env={**os.environ, "FLWR_HOME": str(scratch / "home")}, stdout=subprocess.DEVNULL, start_new_session=True)
    def wait():
        print(child.pid, flush=True)
        time.sleep(600 if end == "wait" else 0)
    if run:
        with launcher_of(RunFolder(Path(run)), scratch):
            watch(Path(run))
            wait()
    else:
        wait()
"""


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "cdcda-scratch" / "home").mkdir(parents=True)
    return tmp_path / "cdcda-scratch"


def _launcher(scratch: Path, run: str, end: str = "wait") -> tuple[subprocess.Popen[str], psutil.Process]:
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(scratch), run, end], text=True, stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    return process, psutil.Process(int(process.stdout.readline()))


def _comes(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 120
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
    return true()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
@pytest.mark.parametrize("has_folder", [True, False])
def test_what_a_killed_launcher_leaves_is_ended(
    tmp_path: Path, scratch: Path, number: signal.Signals, has_folder: bool
) -> None:
    folder = RunFolder.create(tmp_path / "runs", "first")
    folder.update(status="running")
    launcher, child = _launcher(scratch, str(folder.path) if has_folder else "")
    os.kill(launcher.pid, number)
    launcher.communicate()
    assert _comes(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    assert _comes(lambda: not scratch.exists())
    # The status is the last thing that is written.
    assert _comes(lambda: folder.manifest().status == ("interrupted" if has_folder else "running"))


def test_a_launcher_that_ends_in_order_is_left_alone(scratch: Path) -> None:
    launcher, child = _launcher(scratch, "", "end")
    launcher.communicate()
    assert launcher.returncode == 0
    assert child.is_running()
    assert scratch.is_dir()
    child.kill()


def test_a_killed_guard_does_not_disturb_the_launch(scratch: Path) -> None:
    with no_orphans(scratch) as watch:
        (guard,) = [child for child in psutil.Process().children() if str(scratch) in child.cmdline()]
        guard.kill()
        guard.wait()
        watch(scratch)
    assert scratch.is_dir()
