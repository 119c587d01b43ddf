"""A TCP proxy on the loopback interface that looks for texts in everything that passes, either way; not a test."""

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

_CHUNK = 1 << 16


@dataclass
class Traffic:
    """What passed: bytes in all, and the texts that were seen."""

    texts: Sequence[bytes]
    port: int = 0
    passed: int = 0
    seen: set[bytes] = field(default_factory=set)

    def note(self, data: bytes, before: bytes) -> bytes:
        """Looks at some bytes of one stream, with the end of those before; returns the new end."""
        both = before + data
        self.passed += len(data)
        self.seen |= {text for text in self.texts if text in both}
        return both[-max(map(len, self.texts)) :]


@contextmanager
def proxy(to_port: int, texts: Sequence[str]) -> Iterator[Traffic]:
    """Passes connections on to a port, and looks for the texts as UTF-8."""
    traffic = Traffic([text.encode() for text in texts])
    with socket.create_server(("127.0.0.1", 0)) as server:
        traffic.port = server.getsockname()[1]
        thread = threading.Thread(target=_accept, args=(server, to_port, traffic), daemon=True)
        thread.start()
        try:
            yield traffic
        finally:
            # Wakes the thread up, which a close alone does not.
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def _accept(server: socket.socket, to_port: int, traffic: Traffic) -> None:
    while True:
        try:
            near, _ = server.accept()
        except OSError:
            return  # the test is over
        try:
            far = socket.create_connection(("127.0.0.1", to_port))
        except OSError:
            near.close()
            continue
        threading.Thread(target=_connect, args=(near, far, traffic), daemon=True).start()


def _connect(near: socket.socket, far: socket.socket, traffic: Traffic) -> None:
    with near, far:
        back = threading.Thread(target=_pass, args=(far, near, traffic), daemon=True)
        back.start()
        _pass(near, far, traffic)
        back.join()


def _pass(source: socket.socket, target: socket.socket, traffic: Traffic) -> None:
    end = b""
    try:
        while data := source.recv(_CHUNK):
            end = traffic.note(data, end)
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return  # one side has gone, and the other one is told by the close
