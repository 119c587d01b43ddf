"""The processes of one run: their environment, their memory, and the end of all of them.

Flower's SuperLink detaches itself and Ray starts trees of its own, so a run's processes are known by the run's
temporary folder, which stands in the environment of each.
"""

import os
import secrets
import socket
import sys
import tempfile
import threading
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import psutil

from cdcda_flower.cloud_api import URL_VARIABLE
from cdcda_flower.key_rules import home_folder

# Ray's sockets lie some 70 characters below this folder and may be 107 characters long in all.
LONGEST_TEMPORARY_FOLDER = 24
SCRATCH_PREFIX = "cdcda-"
RAY_TOKEN = "ray-token"
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
# A process in an uninterruptible state cannot be ended; waiting for it must end.
MOST_PASSES = 20


def temporary_folder() -> Path:
    """Makes a short, private, empty folder for one run; the caller removes it."""
    usual = tempfile.gettempdir()
    return Path(
        tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir=usual if len(usual) <= LONGEST_TEMPORARY_FOLDER else "/tmp")
    )


def write_ray_token(scratch: Path) -> None:
    """Writes the word that Ray's processes of this run know each other by; `environment` says where."""
    (scratch / RAY_TOKEN).write_text(secrets.token_hex(32), encoding="ascii")


def proxy_problem() -> str:
    """Returns why the environment's proxy variables cannot be used, and what to do; "" where they can."""
    named = ", ".join(sorted({name for name in os.environ if name.lower() in _PROXIES and os.environ[name]}))
    try:
        httpx.Client().close()
    except ImportError:
        return f"{named}: a SOCKS proxy needs a package; `pip install socksio`, or name an http:// proxy"
    except (ValueError, httpx.InvalidURL) as error:
        return f"{named}: {error}; give urls such as http://proxy:3128, and hosts in NO_PROXY, or unset them"
    return ""


def free_port() -> int:
    """Returns a port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_is_free(port: int) -> bool:
    """Says whether a server could listen on the port."""
    with socket.socket() as probe:
        # As a server does: a port whose last connection lingers in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def environment(scratch: Path, cache: Path, *, hidden: Collection[str] = ()) -> dict[str, str]:
    """Returns the environment of every process of a run: nothing outside `scratch` and `cache` is written.

    What is named in `hidden`, and every key of the cloud's API, stays behind: clients run the code of share policies.
    """
    user = {name: value for name, value in os.environ.items() if name not in hidden and not _stays_behind(name)}
    if proxy_problem():
        # Each of Flower's processes makes its proxies before it asks its own SuperLink, and would end there.
        user = {name: value for name, value in user.items() if not name.lower().endswith("_proxy")}
    if not home_folder():
        # Libraries look for a home when they are imported, and for a name.
        user |= {"HOME": str(scratch), "USER": user.get("USER", "nobody")}
    paths = [str(scratch / "app"), *filter(None, [user.get("PYTHONPATH", "")])]
    loopback = ",".join(filter(None, [user.get("NO_PROXY", user.get("no_proxy", "")), "127.0.0.1,localhost"]))
    return {
        **user,
        "FLWR_HOME": str(scratch / "home"),
        # Without it every run builds a new environment with all dependencies before it starts.
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_TMPDIR": str(scratch),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray listens on every network interface, and whoever may talk to it may run code.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(scratch / RAY_TOKEN),
        "HF_HOME": user.get("HF_HOME", str(cache / "huggingface")),
        # Where `hf auth login` has left the user's token, whatever folder the run's models go to.
        "HF_TOKEN_PATH": user.get("HF_TOKEN_PATH", str(_user_huggingface(user) / "token")),
        "XDG_CACHE_HOME": user.get("XDG_CACHE_HOME", str(cache / "xdg")),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        # Whatever this terminal's encoding is: a run's processes print progress bars, paths and texts into files.
        "PYTHONUTF8": "1",
        "PYTHONIOENCODING": "utf-8",
        # flwr starts its helpers by name: those of this very Python must be found first.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), user.get("PATH", "")]),
        # Flower asks its own SuperLink over HTTP, which no proxy may answer.
        "NO_PROXY": loopback,
        "no_proxy": loopback,
    }


def _user_huggingface(user: Mapping[str, str]) -> Path:
    cache = user.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))
    return Path(user.get("HF_HOME", os.path.join(cache, "huggingface")))


def _stays_behind(name: str) -> bool:
    # Another cluster's address would take the run's processes there, out of reach.
    return name == "RAY_ADDRESS" or (name.startswith("OPENAI_") and name != URL_VARIABLE)


class RunProcesses:
    """All processes that carry a run's temporary folder in their environment, and their children."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = str(scratch) + os.sep

    def find(self) -> list[psutil.Process]:
        """Returns the processes that live now, this one excluded."""
        found = {process for process in psutil.process_iter() if self._is_ours(process)}
        # Ray's workers write their titles over their environment, but their parents keep it.
        for process in tuple(found):
            found.update(_children(process))
        return [process for process in found if process.pid != os.getpid()]

    def stop(self, *, patience_s: float = 3.0) -> int:
        """Ends all processes, also those that start meanwhile; returns how many lived."""
        ended: set[psutil.Process] = set()
        for _ in range(MOST_PASSES):
            processes = self.find()
            if not processes:
                break
            fresh = [process for process in processes if process not in ended]
            _signal(fresh, kill=False)
            _, stubborn = psutil.wait_procs(processes, timeout=patience_s if fresh else 0.2)
            _signal(stubborn, kill=True)
            psutil.wait_procs(stubborn, timeout=patience_s)
            ended.update(processes)
        return len(ended)

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            home = process.environ().get("FLWR_HOME", "")
            return home.startswith(self._scratch) and bool(process.status() != psutil.STATUS_ZOMBIE)
        except (psutil.Error, OSError):
            return False


class MemoryWatch:
    """Samples the summed proportional set size of a run's processes and this one; shared pages count once."""

    def __init__(self, processes: RunProcesses, *, every_s: float = 5.0) -> None:
        self._processes = processes
        self._every_s = every_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample_until_done, daemon=True, name="memory-watch")
        self.peak_bytes = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _sample_until_done(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, summed_pss([psutil.Process(), *self._processes.find()]))
            if self._done.wait(self._every_s):
                return


def summed_pss(processes: Iterable[psutil.Process]) -> int:
    """Returns the bytes of memory that these processes take together; 0 where the system does not tell."""
    total = 0
    for process in processes:
        try:
            total += getattr(process.memory_full_info(), "pss", 0)
        except (psutil.Error, OSError):
            continue  # it ended meanwhile
    return total


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [child for child in process.children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]
    except psutil.Error:
        return []


def _signal(processes: Iterable[psutil.Process], *, kill: bool) -> None:
    for process in processes:
        try:
            process.kill() if kill else process.terminate()
        except psutil.Error:
            continue  # it ended meanwhile
