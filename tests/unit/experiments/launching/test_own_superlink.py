"""The SuperLink's guard, around a real server: its own user is served, another user of the machine is not."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from experiments.launching.own_superlink import OwnUserOnly, Receive, Scope, Send, can_tell
from experiments.launching.processes import RunProcesses, environment, free_port
from experiments.launching.superlink import superlink

NOBODY = 65534
# Becomes another user once it runs: that user may not be allowed to start this Python.
_ASK = """
import encodings.idna, os, socket, sys
os.setuid(int(sys.argv[3]))
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as to:
    to.sendall(b"GET /health HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n" + sys.argv[2].encode() + b"\\r\\n\\r\\n")
    print(to.recv(99).split()[1].decode())
"""

pytestmark = pytest.mark.skipif(not can_tell(), reason="this system does not tell whose a connection is")


@contextmanager
def _running(folder: Path) -> Iterator[int]:
    port = free_port()
    try:
        with superlink(
            port,
            home=folder / "home",
            log=folder / "superlink.log",
            cwd=folder,
            timeout_s=600,
            environment=environment(folder, folder / "cache"),
        ):
            yield port
    finally:
        RunProcesses(folder).stop()


def _status_for(user: int, port: int, header: str = "X-Nothing: 1") -> str:
    command = [sys.executable, "-c", _ASK, str(port), header, str(user)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_superlink_serves_its_own_user_and_nobody_else(tmp_path: Path) -> None:
    with _running(tmp_path) as port:
        assert httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200
        if os.getuid() == 0:
            assert _status_for(os.getuid(), port) == "200"
            assert _status_for(NOBODY, port) == "403"
            assert _status_for(NOBODY, port, "X-Forwarded-For: 127.0.0.1") == "403"


async def _status(path: str, *, open_fleet: bool) -> int:
    """What a stranger from another machine is answered."""
    sent: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> dict[str, Any]:
        raise AssertionError("nothing is read")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "path": path, "client": ("10.0.0.7", 50_000), "server": ("10.0.0.5", 9_100)}
    await OwnUserOnly(app, open_fleet=open_fleet)(scope, receive, send)
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/fleet/activate-node", 200),
        ("/v1/control/start-run", 403),
        ("/v1/control/register-node", 403),
        ("/v1/fleet", 403),
        ("/health", 403),
        ("//v1/fleet/../control/start-run", 403),
    ],
)
def test_an_open_fleet_lets_devices_in_and_nobody_start_runs(path: str, status: int) -> None:
    assert asyncio.run(_status(path, open_fleet=True)) == status
    assert asyncio.run(_status(path, open_fleet=False)) == 403
