"""Whose key goes where: to the server that it was given for, over TLS or on this machine, and to no process of a device."""

import json
import os
import socket
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from cdcda_flower import cloud_api
from cdcda_flower.cloud_api import KEY_FILE_VARIABLE, api_key, api_model, hand_over, is_this_machine
from cdcda_flower.config import RunConfig, read_defaults
from cdcda_flower.errors import ConfigError, ModelError, RunError
from cdcda_flower.plugins import GenerationRequest
from repository import ROOT
from strategies.cloud.openai_engine import OpenAIGenerator

KEY = "sk-of-openai"
OTHER = "https://llm.example.com/v1"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", KEY_FILE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    cloud_api._handed_over.cache_clear()
    yield
    cloud_api._handed_over.cache_clear()


def _config(url: str = "", variable: str = "") -> RunConfig:
    own = {"cloud-engine": "openai", "cloud-model": "m", "cloud-url": url, "prompt-form": "paper"}
    return RunConfig.from_flwr(read_defaults(ROOT / "pyproject.toml") | own | {"cloud-key-variable": variable})


@pytest.mark.parametrize(
    ("cloud_url", "base_url", "sent"),
    [
        ("", "", True),
        ("https://api.openai.com/v1", "", True),
        ("https://eu.api.openai.com/v1/", "", True),
        ("", OTHER, True),
        (OTHER + "/", OTHER, True),
        (OTHER, "", False),
        (OTHER, "https://another.example.com/v1", False),
        ("https://api.openai.com.example.com/v1", "", False),
        ("https://notapi.openai.com/v1", "", False),
        ("http://api.openai.com/v1", "", False),
        ("https://api.openai.com:8443/v1", "", False),
        ("http://127.0.0.1:8000/v1", "", False),
    ],
)
def test_openais_key_goes_to_openai_and_to_the_url_of_its_variable(
    monkeypatch: pytest.MonkeyPatch, cloud_url: str, base_url: str, sent: bool
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", base_url)
    assert api_key(_config(cloud_url)) == (KEY if sent else "none")


def test_another_servers_key_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("VENDOR_KEY", "vk-1")
    assert api_key(_config(OTHER, "VENDOR_KEY")) == "vk-1"
    assert api_key(_config(OTHER, "OPENAI_API_KEY")) == KEY
    with pytest.raises(ConfigError, match=r"cloud-key-variable names \$MISSING_KEY, which is not set"):
        api_key(_config(OTHER, "MISSING_KEY"))


def test_a_key_in_place_of_its_variables_name_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="must be the name of an environment variable") as caught:
        _config(OTHER, "sk-abc123")
    assert "abc123" not in str(caught.value)


@pytest.mark.parametrize("host", ["llm.example.com", "198.51.100.7", "[2001:db8::7]", "localhost.example.com"])
def test_no_key_travels_unencrypted_to_another_machine(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    url = f"http://{host}:8000/v1"
    monkeypatch.setenv("VENDOR_KEY", "vk-1")
    with pytest.raises(
        ConfigError, match=r"\$VENDOR_KEY would go to http://.* unencrypted.*https://.*ssh -L"
    ) as caught:
        api_key(_config(url, "VENDOR_KEY"))
    assert "vk-1" not in str(caught.value)
    assert api_key(_config(url)) == "none"


def _own_addresses() -> list[str]:
    found = [
        a for card in psutil.net_if_addrs().values() for a in card if a.family in {socket.AF_INET, socket.AF_INET6}
    ]
    return [f"[{a.address.partition('%')[0]}]" if a.family is socket.AF_INET6 else a.address for a in found]


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST",
        "127.0.0.1",
        "127.8.9.1",
        "127.1",
        "0.0.0.0",
        "0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        *_own_addresses(),
    ],
)
def test_this_machine_is_known_by_every_address(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    url = f"http://{host}:8000/v1"
    assert is_this_machine(url)
    monkeypatch.setenv("VENDOR_KEY", "vk-1")
    assert api_key(_config(url, "VENDOR_KEY")) == "vk-1"


@pytest.mark.parametrize(
    "host", ["198.51.100.7", "127.0.0.1.example.com", "128.0.0.1", "[2001:db8::1]", "example.com", "1.2.3.4.5"]
)
def test_another_machine_is_not_this_one(host: str) -> None:
    assert not is_this_machine(f"http://{host}:8000/v1")


def test_a_handed_key_is_private_read_once_and_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cloud-key"
    hand_over("sk-handed", file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    monkeypatch.setenv(KEY_FILE_VARIABLE, str(file))
    assert api_key(_config()) == "sk-handed"
    assert not file.exists()
    assert api_key(_config()) == "sk-handed"
    cloud_api._handed_over.cache_clear()
    with pytest.raises(RunError, match="was taken by another process"):
        api_key(_config())


@pytest.fixture
def servers() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server that redirects to another one, which notes the headers that it is sent; yields the first one's url and the notes."""
    noted: list[dict[str, str]] = []

    class Second(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            noted.append({**self.headers, "body": self.rfile.read(int(self.headers["content-length"])).decode()})
            body = json.dumps({"choices": [{"message": {"content": "x"}}]}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    second = ThreadingHTTPServer(("127.0.0.1", 0), Second)

    class First(Second):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(307)
            self.send_header("location", f"http://127.0.0.1:{second.server_port}{self.path}")
            self.send_header("content-length", "0")
            self.end_headers()

    first = ThreadingHTTPServer(("127.0.0.1", 0), First)
    for server in (first, second):
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{first.server_port}/v1", noted
    for server in (first, second):
        server.shutdown()
        server.server_close()


def test_a_redirect_takes_neither_key_nor_prompt_along(
    servers: tuple[str, list[dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, noted = servers
    monkeypatch.setenv("VENDOR_KEY", "vk-1")
    config = _config(url, "VENDOR_KEY")
    asked = GenerationRequest(
        prompt="a secret", prefix="", then="", samples=1, seed=1, max_new_tokens=8, choices=(), greedy=False
    )
    with pytest.raises(ModelError, match=r"cloud-url leads to http://127.*redirects to another address \(307"):
        OpenAIGenerator(config, api_model(config)).generate([asked], on_answer=lambda *_: None)
    assert noted == []


def test_the_servers_process_finds_no_key_in_its_environment_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from experiments.launching.processes import environment

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "org")
    monkeypatch.setenv("OPENAI_BASE_URL", OTHER)
    monkeypatch.setenv("VENDOR_KEY", "vk-1")
    env = environment(tmp_path, tmp_path, hidden={"VENDOR_KEY"})
    assert {name for name in env if name.startswith(("OPENAI_", "VENDOR_"))} == {"OPENAI_BASE_URL"}
    assert not {KEY, "vk-1"} & set(env.values())
    assert os.environ["OPENAI_API_KEY"] == KEY
