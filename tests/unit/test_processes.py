"""A run's processes are found by their environment and ended, also those that hide or refuse."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from experiments.processes import MemoryWatch, RunProcesses, environment, free_port, port_is_free, summed_pss

SLEEP = "import time; print('ready', flush=True); time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP


def _start(scratch: Path, code: str, home: str | None = None) -> subprocess.Popen[str]:
    env = environment(scratch, scratch) | ({} if home is None else {"FLWR_HOME": home})
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = _start(tmp_path, SLEEP, home="another")
    yield process
    process.kill()
    process.communicate()


def test_ours_are_ended_and_strangers_are_left_alone(tmp_path: Path, stranger: subprocess.Popen[str]) -> None:
    ours = [_start(tmp_path, SLEEP), _start(tmp_path, STUBBORN)]
    processes = RunProcesses(tmp_path)
    assert {process.pid for process in processes.find()} == {process.pid for process in ours}
    assert processes.stop(patience_s=0.5) == 2
    assert processes.find() == []
    assert stranger.poll() is None
    for process in ours:
        process.communicate()


def test_a_child_that_hides_its_environment_is_found_by_its_parent(tmp_path: Path) -> None:
    hidden = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEP!r}], env={{}})"
    parent = _start(tmp_path, hidden)
    processes = RunProcesses(tmp_path)
    (child,) = psutil.Process(parent.pid).children()
    assert child.pid in {process.pid for process in processes.find()}
    processes.stop(patience_s=0.5)
    parent.communicate()
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE  # init reaps it, where there is one


def test_stopping_nothing_stops_nothing(tmp_path: Path) -> None:
    assert RunProcesses(tmp_path).stop() == 0


def test_memory_is_measured_with_all_processes(tmp_path: Path) -> None:
    hungry = _start(tmp_path, "block = bytearray(b'x') * 80_000_000; " + SLEEP)
    processes = RunProcesses(tmp_path)
    with MemoryWatch(processes, every_s=0.05) as watch:
        while watch.peak_bytes < 80_000_000:
            pass
    assert watch.peak_bytes > summed_pss([psutil.Process()])
    processes.stop()
    hungry.communicate()


def test_the_environment_keeps_the_users_and_leads_with_the_staged_app(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/mine")
    monkeypatch.setenv("HF_HOME", "/models")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    env = environment(tmp_path / "scratch", tmp_path / "cache")
    assert env["PYTHONPATH"].split(os.pathsep) == [str(tmp_path / "scratch" / "app"), "/mine"]
    assert (env["HF_HOME"], env["HF_HUB_OFFLINE"]) == ("/models", "1")
    assert "127.0.0.1" in env["NO_PROXY"].split(",")


def test_a_free_port_is_free() -> None:
    assert port_is_free(free_port())


def test_a_runs_processes_speak_utf_8_whatever_the_terminal_speaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    monkeypatch.setenv("LC_ALL", "C")
    code = "import locale; print('mae ↓ 中文', locale.getpreferredencoding(False))"
    said = subprocess.run(
        [sys.executable, "-c", code], env=environment(tmp_path, tmp_path), capture_output=True, check=True
    )
    assert said.stdout.decode("utf-8").lower() == "mae ↓ 中文 utf-8\n"


def test_a_runs_processes_find_the_token_of_a_log_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HOME", "HF_TOKEN_PATH", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/ann")
    env = environment(tmp_path / "scratch", tmp_path / "cache")
    assert env["HF_HOME"] == str(tmp_path / "cache" / "huggingface")
    assert env["HF_TOKEN_PATH"] == "/home/ann/.cache/huggingface/token"
    monkeypatch.setenv("HF_HOME", "/data/hf")
    assert environment(tmp_path, tmp_path)["HF_TOKEN_PATH"] == "/data/hf/token"
