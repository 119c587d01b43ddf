"""Flower's SuperLink, for the processes of its own user only: `python -P own_superlink.py ...` takes flower-superlink's options.

A SuperLink runs the code that it is sent, and knows nobody: without this, whoever reaches it could have code run as whoever
started it. Linux says whose each connection of the loopback interface is. With `--open-fleet`, SuperNodes may come from
elsewhere, and prove themselves by their keys; starting runs and registering keys stay the own user's.
"""

import ipaddress
import os
import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import uvicorn

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_FLEET = "--open-fleet"
_FLEET = "/v1/fleet/"
_TABLE = Path("/proc/net/tcp")
_LOCAL, _REMOTE, _STATE, _UID = 1, 2, 3, 7  # columns of the table
_ESTABLISHED = "01"


class OwnUserOnly:
    """Wraps a web app: requests of other users, and of whoever cannot be found, are refused before the app sees them."""

    def __init__(self, app: App, *, open_fleet: bool = False) -> None:
        self._app, self._open_fleet = app, open_fleet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on what is the own user's; everything but `lifespan` comes over a connection."""
        if scope["type"] == "lifespan" or self._serves(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"this SuperLink serves its own user only\n"})
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _serves(self, scope: Scope) -> bool:
        fleet = self._open_fleet and scope["type"] == "http" and scope["path"].startswith(_FLEET)
        return fleet or owner(scope["client"], scope["server"]) == os.getuid()


def owner(client: tuple[str, int], server: tuple[str, int]) -> int | None:
    """Returns the number of the user whose process holds the client's end of a loopback connection, None where none does."""
    ends = [_hexadecimal(client), _hexadecimal(server), _ESTABLISHED]
    for line in _TABLE.read_text(encoding="ascii").strip().split("\n")[1:]:
        columns = line.split()
        if columns[_LOCAL : _STATE + 1] == ends:
            return int(columns[_UID])
    return None


def can_tell() -> bool:
    """Says whether this system tells whose a connection is: not every one does, and a run must start there too."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        try:
            return owner(client.getsockname(), server.getsockname()) == os.getuid()
        except OSError:
            return False


def _hexadecimal(address: tuple[str, int]) -> str:
    """Returns an address as the table writes it: the bytes of the IPv4 number in the machine's order, and the port."""
    number = int.from_bytes(ipaddress.IPv4Address(address[0]).packed, sys.byteorder)
    return f"{number:08X}:{address[1]:04X}"


def main() -> None:
    """Runs Flower's own command with the guard around its web app; where the system does not tell, without, unless devices may connect."""
    open_fleet = OPEN_FLEET in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != OPEN_FLEET]
    if open_fleet and not can_tell():
        sys.stderr.write(
            f"{OPEN_FLEET}: this system does not tell whose a connection is, so whoever reaches the port could start runs; "
            "start Flower's own flower-superlink behind a firewall or proxy that passes /v1/fleet/ only\n"
        )
        sys.exit(2)
    if can_tell():
        serve = uvicorn.run

        def guarded(app: App, **options: Any) -> None:  # noqa: ANN401 - uvicorn's own options
            # A header must not say where a request comes from.
            serve(OwnUserOnly(app, open_fleet=open_fleet), **{**options, "proxy_headers": False})

        # Flower's command offers no place for a middleware; it serves through this one function (a test sees to it).
        uvicorn.run = guarded  # type: ignore[assignment]
    (command,) = entry_points(group="console_scripts", name="flower-superlink")
    command.load()()


if __name__ == "__main__":
    main()
