"""The SuperLink of one run: started, and waited for, by the launcher.

`flwr run` would start one by itself, but gives it up after 15 seconds, which a busy machine needs for its imports alone.
"""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from cdcda_flower.errors import RunError

POLL_S = 0.2
SAID_CHARACTERS = 2000


@contextmanager
def superlink(
    port: int, *, home: Path, log: Path, environment: Mapping[str, str], cwd: Path, timeout_s: float
) -> Iterator[None]:
    """Starts a SuperLink for simulations, as `flwr run` does, and tells the `flwr` of the same home where it listens.

    Enters when it answers and ends it at the exit, not what it started itself: `RunProcesses` does. Raises RunError, with its
    last words, where it ends before or does not answer in time.
    """
    home.mkdir(parents=True, exist_ok=True)
    address = f'address = "127.0.0.1:{port}"\ninsecure = true\n'
    (home / "config.toml").write_text(f'[superlink]\ndefault = "run"\n\n[superlink.run]\n{address}', encoding="utf-8")
    command = [
        sys.executable,
        "-P",
        str(Path(__file__).with_name("own_superlink.py")),
        "--insecure",
        "--simulation",
        "--isolation",
        "subprocess",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--database",
        str(home / "state.db"),
        "--log-file",
        str(log),
    ]
    # Also what it says before it has a log.
    words = home / "superlink.out"
    with words.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=dict(environment),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait(process, port, timeout_s, words)
        yield
    finally:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, timeout_s: float, words: Path) -> None:
    deadline = time.monotonic() + timeout_s
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10) as client:
        while not _answers(client):
            if process.poll() is not None:
                failure = f"ended with exit code {process.returncode} before the run"
            elif time.monotonic() > deadline:
                failure = f"did not answer within {timeout_s:g} s; raise start-timeout-s"
            else:
                time.sleep(POLL_S)
                continue
            said = words.read_text(encoding="utf-8", errors="replace").strip()[-SAID_CHARACTERS:] or "nothing"
            raise RunError(f"Flower's SuperLink {failure}; it said:\n{said}")


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/health").is_success
    except httpx.TransportError:
        return False
