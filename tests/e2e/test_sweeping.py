"""`cdcda sweep` with real runs of the test doubles: what fails is gone past, what is finished is skipped, what is killed goes on."""

import re
import signal
import time
from pathlib import Path

import pytest

from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.runs.progress import read_progress
from commands import DOUBLES, LIMIT_S, Done, Place, cdcda, ended, settled, start, write_toml

POLICIES = '''import time


class Refuse:
    """Fails on every device."""

    name = "refuse"

    def select(self, history, *, seed):
        raise RuntimeError("not today")


class Slow:
    """Takes time enough to be disturbed."""

    name = "slow"

    def select(self, history, *, seed):
        time.sleep(3)
        return history[:1]
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Three cells over the doubles, of which the second fails."""
    (tmp_path / "policies.py").write_text(POLICIES, encoding="utf-8")
    write_toml(tmp_path / "base.toml", DOUBLES | {"num-users": 2, "methods": "device,cdcda"})
    axes = 'share-policy = ["all", "policies:Refuse", "none"]'
    (tmp_path / "sweep.toml").write_text(f"name = 'trio'\nbase = 'base.toml'\n[axes]\n{axes}\n", encoding="utf-8")
    return tmp_path / "sweep.toml"


def _runs(place: Place, sweep: str) -> dict[str, str]:
    """Returns the run folders of a sweep with their status."""
    found = sorted(path for path in place.runs.glob(f"{sweep}-*") if path.is_dir())
    return {path.name: RunFolder(path).manifest().status for path in found}


def test_what_fails_is_gone_past_and_what_is_finished_is_skipped(place: Place, file: Path) -> None:
    first = cdcda(place, "sweep", str(file))
    assert first.code == 1, first.err
    assert "cell 3 of 3: none" in first.err
    assert "Traceback" not in first.err
    assert re.search(r"3 cells: 2 finished, 1 failed", first.out)
    runs = _runs(place, "trio")
    assert sorted(runs.values()) == ["failed", "finished", "finished"]
    again = cdcda(place, "sweep", str(file))
    assert again.code == 1, again.err
    assert re.search(r"3 cells: 2 finished before, 1 failed", again.out)
    assert "which stopped" in again.err
    assert _runs(place, "trio") == runs
    listed = cdcda(place, "sweep", str(file), "--dry-run")
    assert listed.code == 0
    assert re.search(r"3 cells: 2 finished before, 1 not run", listed.out)
    assert _runs(place, "trio") == runs
    assert settled(place) == []
    assert list(place.temporary.iterdir()) == []


def _slow(file: Path, name: str, *, seed: int) -> Path:
    """Two cells that no other test's sweep has finished: the seed sees to that."""
    text = f"name = '{name}'\nbase = 'base.toml'\n[keys]\nseed = {seed}\n[axes]\nshare-policy = ['policies:Slow', 'none']\n"
    (file.parent / f"{name}.toml").write_text(text, encoding="utf-8")
    return file.parent / f"{name}.toml"


def _disturbed(place: Place, file: Path, name: str, number: signal.Signals) -> Done:
    """Starts a sweep, sends a signal while its first run shares, and returns how it ended."""
    command = start(place, "sweep", str(file))
    deadline = time.monotonic() + LIMIT_S
    while command.poll() is None and time.monotonic() < deadline:
        states = [read_progress(RunFolder(path).progress_path) for path in place.runs.glob(f"{name}-*")]
        if any(state is not None and state.phase == "share" for state in states):
            command.send_signal(number)
            return ended(command)
        time.sleep(0.05)
    raise AssertionError(ended(command))


def test_ctrl_c_ends_the_run_and_the_sweep_and_leaves_nothing(place: Place, file: Path) -> None:
    done = _disturbed(place, _slow(file, "stopped", seed=1), "stopped", signal.SIGINT)
    assert done.code == 130, done.err
    assert re.search(r"2 cells: 1 interrupted, 1 not run", done.out)
    assert list(_runs(place, "stopped").values()) == ["interrupted"]
    assert "Traceback" not in done.err
    assert settled(place) == []
    assert list(place.temporary.iterdir()) == []


def test_a_killed_sweep_goes_on_and_ends_what_it_left(place: Place, file: Path) -> None:
    sweep = _slow(file, "killed", seed=2)
    assert _disturbed(place, sweep, "killed", signal.SIGKILL).code == -signal.SIGKILL
    assert settled(place) == []
    assert list(_runs(place, "killed").values()) == ["interrupted"]
    again = cdcda(place, "sweep", str(sweep))
    assert again.code == 0, again.err
    assert re.search(r"2 cells: 2 finished", again.out)
    assert sorted(_runs(place, "killed").values()) == ["finished", "finished"]
    assert settled(place) == []
    assert list(place.temporary.iterdir()) == []
