"""A run's processes are found by their environment and ended, also those that hide or refuse."""

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from cdcda_flower.files import private_files
from experiments.launching.processes import (
    MemoryWatch,
    RunProcesses,
    environment,
    free_port,
    port_is_free,
    proxy_problem,
    summed_pss,
    write_ray_token,
)

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


PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:7890", "pip install socksio"),
        ("all_proxy", "socks5h://127.0.0.1:7890", "pip install socksio"),
        ("HTTPS_PROXY", "socks4://127.0.0.1:7890", "http://proxy:3128"),
        ("HTTP_PROXY", "garbage://x", "http://proxy:3128"),
        ("http_proxy", "http://proxy:port", "http://proxy:3128"),
        ("NO_PROXY", "[::1]", "NO_PROXY"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named_and_not_passed_on(
    tmp_path: Path, no_proxy: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    if "socksio" in said and find_spec("socksio"):
        pytest.skip("socksio is installed, so that SOCKS proxies can be used")
    no_proxy.setenv(name, value)
    no_proxy.setenv("HTTPS_PROXY" if name != "HTTPS_PROXY" else "HTTP_PROXY", "http://proxy:3128")
    assert name in proxy_problem()
    assert said in proxy_problem()
    env = environment(tmp_path, tmp_path)
    assert {key: env[key] for key in PROXIES if key in env} == {
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


def test_a_proxy_that_can_be_used_is_passed_on_and_kept_from_this_machine(
    tmp_path: Path, no_proxy: pytest.MonkeyPatch
) -> None:
    no_proxy.setenv("HTTPS_PROXY", "http://proxy:3128")
    no_proxy.setenv("NO_PROXY", "inside.example.com")
    assert proxy_problem() == ""
    env = environment(tmp_path, tmp_path)
    assert (env["HTTPS_PROXY"], env["NO_PROXY"]) == ("http://proxy:3128", "inside.example.com,127.0.0.1,localhost")


def test_a_user_without_a_home_has_one_in_the_scratch_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert environment(tmp_path, tmp_path)["HOME"] == str(tmp_path)


def test_rays_processes_know_each_other_by_a_private_word(tmp_path: Path) -> None:
    with private_files():
        write_ray_token(tmp_path)
    env = environment(tmp_path, tmp_path)
    token = Path(env["RAY_AUTH_TOKEN_PATH"])
    assert env["RAY_AUTH_MODE"] == "token"
    assert (len(token.read_text()), token.stat().st_mode & 0o777) == (64, 0o600)
