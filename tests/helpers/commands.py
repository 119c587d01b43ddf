"""Runs the command line as a user does, from a copy of the source tree, and sees what it leaves behind; not a test."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.runs.progress import read_progress
from repository import ROOT

PACKAGES = ("cdcda_flower", "clients", "strategies", "experiments")
BIN = Path(sys.executable).parent
# A command that hangs must fail its test with what it said, not stop the whole suite. It is no measure of speed: a sweep of
# three runs took five minutes on a machine that was slow that day, so the limit is far above what any command needs.
LIMIT_S = 1800

DOUBLES = {
    "task": "lamp-3",
    "num-users": 4,
    "share-ratio": 0.5,
    "k": 2,
    "cloud-engine": "echo",
    "consistency-scorer": "echo",
    "device-executor": "echo",
    "bertscore-model": "none",
}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one test session's commands run: a copy of the source tree, and folders of its own for all that is written."""

    tree: Path
    temporary: Path
    cache: Path
    runs: Path
    work: Path

    def environment(self, **more: str) -> dict[str, str]:
        """Returns the environment of a command; every process that it starts is known by its TMPDIR."""
        own = {
            "TMPDIR": str(self.temporary),
            "CDCDA_CACHE_DIR": str(self.cache),
            "CDCDA_RUNS_DIR": str(self.runs),
            "CDCDA_MIN_FREE_GB": "0",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(self.tree), os.environ.get("PYTHONPATH", "")])),
            # No bytecode in the tree that tests compare. That of the installed packages is read: a prefix would hide it.
            "PYTHONDONTWRITEBYTECODE": "1",
            # A test never asks a hub; what is not on this machine is an error.
            "HF_HUB_OFFLINE": "1",
        }
        return {**os.environ, **own, **more}

    def processes(self) -> list[psutil.Process]:
        """Returns the living processes that a command of this place started."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def client_at_work(self) -> psutil.Process | None:
        """Returns a process of Ray that works for a device now: Ray writes what a worker does into its title."""
        for process in self.processes():
            try:
                if "ClientAppActor.run" in " ".join(process.cmdline()):
                    return process
            except psutil.Error:
                continue  # it ended meanwhile
        return None

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            # Ray's workers write their titles over their environment, but stay in the run's working folder.
            places = (process.environ().get("TMPDIR", ""), process.cwd())
        except (psutil.Error, OSError):
            return False
        return any(place.startswith(str(self.temporary)) for place in places)


@dataclass(frozen=True, kw_only=True)
class Done:
    """How a command ended."""

    code: int
    out: str = field(repr=False)
    err: str = field(repr=False)

    @property
    def folder(self) -> RunFolder:
        """The run folder that the last line of standard output names."""
        key, _, path = self.out.splitlines()[-1].partition(": ")
        assert key == "run", self.out + self.err
        return RunFolder(Path(path))

    def message(self) -> str:
        """Returns what standard error says, having checked that it is an answer to bad input and no traceback."""
        assert self.code == 2, f"exit code {self.code}: {self.out}{self.err}"
        assert "Traceback" not in self.out + self.err
        return self.err


def write_toml(file: Path, values: Mapping[str, object]) -> Path:
    """Writes a flat TOML file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{key} = {_toml(value)}\n" for key, value in values.items()]
    file.write_text("".join(lines), encoding="utf-8")
    return file


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"'{value}'" if isinstance(value, str) else str(value)


def start(place: Place, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Starts one `cdcda` command of the copied tree."""
    return subprocess.Popen(
        [str(BIN / "cdcda"), *arguments],
        cwd=place.work,
        env=place.environment(**environment),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=_listen_to_ctrl_c,
    )


def _listen_to_ctrl_c() -> None:
    # A shell starts a background job with SIGINT ignored, and a child inherits that: tests may run as such a job.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def ended(command: subprocess.Popen[str]) -> Done:
    """Waits for a command's end, and asks it to stop where it takes too long."""
    try:
        out, err = command.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        command.send_signal(signal.SIGTERM)
        out, err = command.communicate(timeout=300)
        err += f"\nstopped by the test after {LIMIT_S} s"
    return Done(code=command.returncode, out=out, err=err)


def cdcda(place: Place, *arguments: str, **environment: str) -> Done:
    """Runs one `cdcda` command to its end."""
    return ended(start(place, *arguments, **environment))


def wait_for_phase(place: Place, name: str, phase: str, command: subprocess.Popen[str]) -> RunFolder:
    """Returns the run's folder once it is in a phase; fails where the command ends before."""
    folder = RunFolder(place.runs / name)
    deadline = time.monotonic() + LIMIT_S
    while command.poll() is None and time.monotonic() < deadline:
        state = read_progress(folder.progress_path)
        if state is not None and state.phase == phase:
            return folder
        time.sleep(0.05)
    raise AssertionError(f"the run never came to {phase}: {ended(command)}")


def settled(place: Place, *, within_s: float = 30.0) -> list[psutil.Process]:
    """Returns the processes that are still there after a short while: an empty list where all have ended."""
    deadline = time.monotonic() + within_s
    while (found := place.processes()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def end_all(place: Place) -> None:
    """Ends what a failed test left behind."""
    for process in place.processes():
        try:
            process.kill()
        except psutil.Error:
            continue  # it ended meanwhile


def copy_tree(target: Path) -> Path:
    """Copies what makes the app into a folder, as a clone would hold it."""
    # flwr refuses a pattern of fab-exclude that matches no file, so every file beside the packages is copied too.
    for folder in (*PACKAGES, "tests", "docs", "benchmarks", "examples"):
        shutil.copytree(ROOT / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    for file in filter(Path.is_file, ROOT.iterdir()):
        shutil.copyfile(file, target / file.name)
    return target


def listing(folder: Path) -> dict[str, int]:
    """Returns every file under a folder with the time of its last change."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in _files(folder)}


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())
