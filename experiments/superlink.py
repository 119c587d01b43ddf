"""The SuperLink of one run: started, and waited for, by the launcher.

`flwr run` would start one by itself, but gives it up after 15 seconds, which a busy machine needs for its imports alone.
"""

import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from cdcda_flower.errors import RunError

POLL_S = 0.2


def start_superlink(
    port: int, *, home: Path, log: Path, environment: Mapping[str, str], cwd: Path
) -> subprocess.Popen[bytes]:
    """Starts a SuperLink for simulations, as `flwr run` does, and tells the `flwr` of the same home where it listens."""
    home.mkdir(parents=True, exist_ok=True)
    address = f'address = "127.0.0.1:{port}"\ninsecure = true\n'
    (home / "config.toml").write_text(f'[superlink]\ndefault = "run"\n\n[superlink.run]\n{address}', encoding="utf-8")
    command = [
        str(Path(sys.executable).parent / "flower-superlink"), "--insecure", "--simulation", "--isolation", "subprocess",
        "--host", "127.0.0.1", "--port", str(port), "--database", str(home / "state.db"), "--log-file", str(log),
    ]  # fmt: skip
    with spoken(home).open("wb") as output:
        return subprocess.Popen(
            command, env=dict(environment), cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip


def spoken(home: Path) -> Path:
    """Returns where a SuperLink's words on the terminal are kept: also those from before it has a log."""
    return home / "superlink.out"


def wait_for_superlink(process: subprocess.Popen[bytes], port: int, *, timeout_s: float) -> None:
    """Returns when the SuperLink answers; raises RunError where it ends before, or does not answer in time."""
    deadline = time.monotonic() + timeout_s
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10) as client:
        while True:
            if process.poll() is not None:
                raise RunError(f"Flower's SuperLink ended with exit code {process.returncode} before the run")
            if _answers(client):
                return
            if time.monotonic() > deadline:
                raise RunError(f"Flower's SuperLink did not answer within {timeout_s:g} s; raise start-timeout-s")
            time.sleep(POLL_S)


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/health").is_success
    except httpx.TransportError:
        return False
