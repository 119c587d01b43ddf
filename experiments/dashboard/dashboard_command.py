"""`cdcda dashboard`: serves the page on this machine until Ctrl-C."""

import gc
import secrets
import socket
import tempfile
import webbrowser
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from cdcda_flower.errors import BadInputError
from cdcda_flower.runs.folder import RunFolder
from experiments.dashboard.catalog import Catalog
from experiments.terminal import Terminal

if TYPE_CHECKING:
    from uvicorn import Server

_OBJECTS_BEFORE_COLLECTION = 200_000
HOST = "127.0.0.1"


def serve(named: Sequence[RunFolder], runs: Path, terminal: Terminal, *, port: int, browse: bool) -> None:
    """Shows the named runs, or all of the runs folder, until Ctrl-C; `port` 0 takes a free one."""
    catalog = Catalog(named, runs)
    token = secrets.token_urlsafe(24)
    listening = _listening(port)
    server = server_of(catalog, token=token)
    link = f"http://{HOST}:{listening.getsockname()[1]}/#token={token}"
    terminal.say(f"dashboard: {link}")
    what = f"{len(named)} named runs" if named else f"all runs in {runs}"
    terminal.note(f"It shows {what}. Only this machine can open it, with this link. Ctrl-C ends it.")
    with listening, tempfile.TemporaryDirectory(prefix="cdcda-link-") as scratch:
        if browse:
            # Every user of the machine sees what a browser is started with: it gets a file that only this user reads.
            page = Path(scratch, "open.html")
            page.write_text(f'<meta http-equiv="refresh" content="0;url={link}">', encoding="utf-8")
            webbrowser.open_new_tab(page.as_uri())
        # Ctrl-C is how a dashboard ends; uvicorn raises it again when it has closed everything.
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listening])


def server_of(catalog: Catalog, *, token: str) -> "Server":
    """Returns the dashboard's server, which takes its socket when it is run."""
    # Take half a second to import.
    from uvicorn import Config, Server

    from experiments.dashboard.server import dashboard

    # Takes a second to import, which the first comparison would take longer.
    import_module("scipy.stats")
    # A run of ten thousand people is some hundred thousand values, none of them garbage: looking for it among them again and
    # again takes a fifth of the time.
    gc.freeze()
    gc.set_threshold(_OBJECTS_BEFORE_COLLECTION)
    app = dashboard(catalog, token=token, ending=lambda: server.should_exit)
    # An open event stream sees within a second that the server ends. It has no web sockets.
    server = Server(Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=5, ws="none"))
    return server


def _listening(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise BadInputError(f"--port {port}: {error.strerror}; give another port, or 0 for a free one") from None
    return listening
