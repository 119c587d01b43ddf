"""A server on loopback that answers as a test says, for what a real one does not do on demand. Not a test."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Reply(NamedTuple):
    """What the server answers."""

    status: int = 200
    body: str | None = None  # None: a completion that repeats prompt and seed
    headers: Mapping[str, str] = {}
    after_s: float = 0.0


Asked = dict[str, Any]
"""A request's body."""


def completion(text: str | None, end: str | None = "stop", **choice: object) -> str:
    """Returns the body of an answer."""
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    said = {"finish_reason": end, "message": {"role": "assistant", "content": text}, **choice}
    return json.dumps({"choices": [said], "usage": usage})


@dataclass
class Script:
    """The n-th call gets the n-th reply, and those after the last one the last; requests for which `odd` has a reply get that."""

    replies: Sequence[Reply]
    odd: Callable[[Asked], Reply | None]
    asked: list[Asked] = field(default_factory=list)
    most_at_once: int = 0
    at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answers one request."""
        asked = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        with self.lock:
            reply = self.odd(asked) or self.replies[min(len(self.asked), len(self.replies) - 1)]
            self.asked.append(asked)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(reply.after_s)
        with self.lock:
            self.at_once -= 1
        text = f"{asked['messages'][0]['content']} {asked['seed']}"
        body = (completion(text) if reply.body is None else reply.body).encode()
        handler.send_response(reply.status)
        for name, value in {"content-type": "application/json", **reply.headers}.items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is what some tests want."""


@contextmanager
def scripted(
    *replies: Reply, odd: Callable[[Asked], Reply | None] = lambda asked: None
) -> Iterator[tuple[Script, str]]:
    """Gives a server's script, in which its requests are noted, and its url."""
    script = Script(replies or (Reply(),), odd)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            script.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    with _QuietServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield script, f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of server, as a Script's `odd`: what it does with an answer that is begun, and with one that is bound.

    `binds` is the field that it knows; of other fields it refuses those in `refused`, with `status`, and ignores the rest.
    `line` is what it writes where it is free. Without `stops` it writes on after a newline. With `shapes` it writes an object
    by its schema.
    """

    continues: bool = True
    repeats: bool = False
    binds: str = ""
    refused: frozenset[str] = frozenset()
    status: int = 400
    line: str = " two spies fall out"
    stops: bool = True
    shapes: bool = False

    def __call__(self, asked: Asked) -> Reply | None:
        """Returns its reply."""
        if self.refused & asked.keys():
            return Reply(self.status, json.dumps({"error": {"message": "unknown field"}}))
        begun = asked["messages"][1]["content"] if len(asked["messages"]) > 1 else ""
        if self.shapes and (properties := _properties(asked)):
            written = {name: own.get("enum", [self.line])[-1] for name, own in properties.items()}
            return Reply(body=completion(json.dumps(written)))
        if not self.continues or not begun:
            return Reply(body=completion("Certainly! Here is a robin."))
        if self.binds in asked:
            text = _last_choice(self.binds, asked[self.binds])
        elif begun.endswith("green-blue red"):
            text = "-green-blue red-green-blue"
        else:
            text = self.line if self.stops and "stop" in asked else f"{self.line}\nand more"
        return Reply(body=completion(begun + text if self.repeats else text))


def _properties(asked: Asked) -> dict[str, Any]:
    schema = asked.get("response_format", {}).get("json_schema", {}).get("schema", {})
    return dict(schema.get("properties", {}))


def _last_choice(field: str, value: Any) -> str:
    if field == "structured_outputs":
        return str(value["choice"][-1])
    if field == "guided_choice":
        return str(value[-1])
    if field == "grammar":
        return str(json.loads(re.findall(r'"(?:[^"\\]|\\.)*"', value)[-1]))
    return json.dumps(value["json_schema"]["schema"]["enum"][-1])
