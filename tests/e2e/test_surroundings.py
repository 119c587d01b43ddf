"""Runs in surroundings that are not a developer's: a key to keep, a proxy that cannot be used, a user without a home."""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from commands import BIN, DOUBLES, Done, Place, cdcda, write_toml

KEY = "vk-a-key-that-nobody-else-sees"
# What a policy can see without looking into other processes.
CURIOUS = """import json
import os
from pathlib import Path


class Curious:
    name = "curious"

    def __init__(self, *, notes):
        self._notes = Path(notes)

    def select(self, history, *, seed):
        scratch = Path(os.environ["RAY_TMPDIR"])
        seen = {"environment": dict(os.environ), "files": [path.name for path in scratch.iterdir()]}
        (self._notes / f"{seed}.json").write_text(json.dumps(seen))
        return history[:1]
"""


@pytest.fixture
def vendor() -> Iterator[tuple[str, list[str]]]:
    """A chat server on loopback; yields its url and the keys that it is asked with."""
    keys: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            keys.append(self.headers["authorization"])
            text = "**Input:** [a town plants a tree in every street]\n**Response:** [Trees for every street]"
            choices = [{"finish_reason": "stop", "message": {"role": "assistant", "content": text}}]
            usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
            body = json.dumps({"choices": choices, "usage": usage}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1", keys
    server.shutdown()
    server.server_close()


def test_the_clouds_key_reaches_its_server_and_no_policy_and_a_broken_proxy_stops_nothing(
    place: Place, tmp_path: Path, vendor: tuple[str, list[str]]
) -> None:
    url, keys = vendor
    (tmp_path / "notes").mkdir()
    (tmp_path / "curious.py").write_text(CURIOUS, encoding="utf-8")
    own = {
        "task": "lamp-4",
        "cloud-engine": "openai",
        "cloud-model": "m",
        "prompt-form": "paper",
        "cloud-url": url,
        "cloud-key-variable": "VENDOR_KEY",
        "share-policy": "curious:Curious",
        "tape-mode": "off",
        "plugin-args": json.dumps({"curious:Curious": {"notes": str(tmp_path / "notes")}}),
    }
    conf = write_toml(tmp_path / "vendor.toml", {**DOUBLES, **own})
    done = cdcda(
        place,
        "run",
        str(conf),
        "--name",
        "vendor",
        VENDOR_KEY=KEY,
        OPENAI_API_KEY="sk-another",
        ALL_PROXY="socks4://127.0.0.1:9",
        HTTPS_PROXY="garbage",
    )
    assert done.code == 0, done.out + done.err
    assert set(keys) == {f"Bearer {KEY}"}
    notes = [json.loads(file.read_text()) for file in (tmp_path / "notes").iterdir()]
    assert len(notes) == 4
    for seen in notes:
        assert not {KEY, "sk-another"} & set(seen["environment"].values())
        assert "cloud-key" not in seen["files"]
    written = [path for root in (done.folder.path, place.cache, tmp_path) for path in root.rglob("*") if path.is_file()]
    assert [path for path in written if KEY.encode() in path.read_bytes()] == []
    assert KEY not in done.out + done.err


def _without_a_home(place: Place, *arguments: str, **environment: str) -> Done:
    """Runs a command as a user whom the system does not know, as a container's `--user` is."""
    unshare = [shutil.which("unshare") or "unshare", "--user", "--map-user=12345"]
    try:
        subprocess.run([*unshare, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this system lets nobody map a user")
    env = {k: v for k, v in place.environment(**environment).items() if k not in {"HOME", "USER", "LOGNAME"}}
    env = {key: value for key, value in env.items() if value}
    ended = subprocess.run(
        [*unshare, str(BIN / "cdcda"), *arguments], env=env, cwd=place.work, text=True, capture_output=True, check=False
    )
    return Done(code=ended.returncode, out=ended.stdout, err=ended.stderr)


def test_a_user_without_a_home_is_told_what_to_set(place: Place) -> None:
    done = _without_a_home(place, "report", "some-run", CDCDA_RUNS_DIR="")
    assert done.message().count("\n") == 1
    assert "set HOME, or $CDCDA_RUNS_DIR to a folder" in done.err


def test_a_user_without_a_home_scores_texts(place: Place, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"task": "LaMP_4", "golds": [{"id": "1", "output": "a b c"}]}))
    answers = str(tmp_path / "a.json")
    done = _without_a_home(place, "score", "--task", "lamp-4", "--predictions", answers, "--golds", answers, "--json")
    assert done.code == 0, done.err
    assert os.environ.get("HOME", "") not in done.out
    assert json.loads(done.out)["metrics"]["rouge-1"] == 1.0
