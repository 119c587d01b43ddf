"""A model on a hub: who is not let in, what is not there, and a hub out of reach each have their own words."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from cdcda_flower.errors import ModelError
from cdcda_flower.models.sources import find_model

SHA = "0" * 40
CONFIGS = {
    "quantised": b'{"quantization_config": {"quant_method": "awq"}}',
    "adapter": b'{"base_model_name_or_path": "Qwen/base"}',
}


class Hub(BaseHTTPRequestHandler):
    """A hub with a gated model, a quantised one and an adapter; it answers as the real one does."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        name = next((name for name in (*CONFIGS, "gated") if name in self.path), "")
        file = "adapter_config.json" if name == "adapter" else "config.json"
        if not name:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif "/resolve/" in self.path and name == "gated":
            self._send(403, b"", {"X-Error-Code": "GatedRepo"})
        elif "/resolve/" in self.path:
            assert self.path.endswith(file), "no weights are asked for"
            self._send(200, CONFIGS[name], {"X-Repo-Commit": SHA, "ETag": '"1"'})
        elif "/tree/" in self.path:
            listed = f'[{{"type": "file", "path": "{file}", "size": {len(CONFIGS.get(name, b""))}, "oid": "1"}},'
            self._send(200, (listed + '{"type": "file", "path": "model.safetensors", "size": 9, "oid": "2"}]').encode())
        else:
            self._send(200, f'{{"id": "o/{name}", "sha": "{SHA}", "siblings": []}}'.encode())

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        _use(monkeypatch, url, tmp_path)
        yield url
        server.shutdown()
        thread.join()


def _use(monkeypatch: pytest.MonkeyPatch, url: str, cache: Path) -> None:
    # The library reads its variables when it is imported.
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "o/gated",
            r"'o/gated' is gated: ask for access on http.*/o/gated, then log in .* `hf auth login`, or set \$HF_TOKEN",
        ),
        (
            "o/unknown",
            r"'o/unknown' is none that the hub http\S+ shows you; check the spelling; if it is private, log in",
        ),
        ("a/b/c", r"'a/b/c' is neither a path nor a Hugging Face id; write"),
        ("o/quantised", r"quantised as awq"),
        ("o/adapter", r"holds an adapter .* its base is Qwen/base"),
    ],
)
def test_what_keeps_a_model_is_said(hub: str, name: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        find_model(name, "causal")


def test_a_hub_out_of_reach_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _use(monkeypatch, "http://127.0.0.1:9", tmp_path)
    with pytest.raises(
        ModelError, match=r"the hub http://127\.0\.0\.1:9 does not answer as it should \(ConnectError\)"
    ):
        find_model("o/model", "causal")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"is not whole in this machine's cache, and \$HF_HUB_OFFLINE forbids"):
        find_model("o/model", "causal")
