"""The download against a real HTTP server on loopback that breaks off half-way."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest

from cdcda_flower.data.download import download
from cdcda_flower.errors import DataError
from cdcda_flower.tasks import task_named

RATING = task_named("lamp-3")
QUESTIONS = json.dumps([{"id": str(n), "text": "x" * 50} for n in range(200)]).encode()
OUTPUTS = json.dumps({"task": "LaMP_3", "golds": []}).encode()


class _Server(ThreadingHTTPServer):
    """Serves `files`; sends at most `most` bytes of an answer, then breaks the connection off."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.most = 1 << 30
        self.knows_range = True
        self.requests: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def offer(self, folder: str = "LaMP_3", questions: bytes = QUESTIONS) -> None:
        for split in ("train", "dev"):
            self.files[f"/time/{folder}/{split}/{split}_questions.json"] = questions
            self.files[f"/time/{folder}/{split}/{split}_outputs.json"] = OUTPUTS

    def asked(self, name: str) -> list[str]:
        return [asked_range for path, asked_range in self.requests if path.endswith(name)]


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        self.server.requests.append((self.path, asked))
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        match = re.fullmatch(r"bytes=(\d+)-", asked) if self.server.knows_range else None
        start = int(match.group(1)) if match else 0
        if match and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        self.send_response(206 if match else 200)
        if match:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : start + self.server.most])
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the test's output clean."""


@contextmanager
def _serving(server: _Server) -> Iterator[_Server]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def server() -> Iterator[_Server]:
    with _serving(_Server()) as running:
        running.offer()
        yield running


def _recorder(seen: list[tuple[str, int, int]]) -> Callable[[str, int, int], None]:
    return lambda name, done, total: seen.append((name, done, total))


def test_all_files_arrive_in_lamps_layout(tmp_path: Path, server: _Server) -> None:
    seen: list[tuple[str, int, int]] = []
    files = download(RATING, tmp_path, base_url=server.url, on_progress=_recorder(seen))
    assert len(files) == 4
    assert (tmp_path / "LaMP_3" / "dev" / "dev_questions.json").read_bytes() == QUESTIONS
    assert ("dev_questions.json", len(QUESTIONS), len(QUESTIONS)) in seen
    assert not list(tmp_path.rglob("*.part"))


def test_a_broken_connection_goes_on_where_it_broke(tmp_path: Path, server: _Server) -> None:
    server.most = len(QUESTIONS) * 2 // 5
    seen: list[tuple[str, int, int]] = []
    download(RATING, tmp_path, splits=("dev",), base_url=server.url, on_progress=_recorder(seen))
    assert (tmp_path / "LaMP_3" / "dev" / "dev_questions.json").read_bytes() == QUESTIONS
    assert server.asked("dev_questions.json") == ["", f"bytes={server.most}-", f"bytes={2 * server.most}-"]
    assert seen[-1] == ("dev_questions.json", len(QUESTIONS), len(QUESTIONS))


def test_a_second_call_goes_on_and_leaves_whole_files_alone(tmp_path: Path, server: _Server) -> None:
    server.most = len(QUESTIONS) // 8
    with pytest.raises(DataError, match=r"dev_questions\.json broke off 5 times, last after \d+ bytes.*run the same"):
        download(RATING, tmp_path, splits=("dev",), base_url=server.url)
    assert not (tmp_path / "LaMP_3" / "dev" / "dev_questions.json").exists()
    server.requests.clear()
    download(RATING, tmp_path, splits=("dev",), base_url=server.url)
    assert (tmp_path / "LaMP_3" / "dev" / "dev_questions.json").read_bytes() == QUESTIONS
    assert server.asked("dev_questions.json")[0] == f"bytes={5 * server.most}-"
    assert server.asked("dev_outputs.json") == []


def test_a_whole_part_file_is_only_verified(tmp_path: Path, server: _Server) -> None:
    part = tmp_path / "LaMP_3" / "dev" / "dev_questions.json.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(QUESTIONS)
    download(RATING, tmp_path, splits=("dev",), base_url=server.url)
    assert part.with_suffix("").read_bytes() == QUESTIONS


def test_a_part_file_longer_than_the_file_starts_over(tmp_path: Path, server: _Server) -> None:
    part = tmp_path / "LaMP_3" / "dev" / "dev_questions.json.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(QUESTIONS + b"more")
    download(RATING, tmp_path, splits=("dev",), base_url=server.url)
    assert part.with_suffix("").read_bytes() == QUESTIONS


def test_a_server_that_ignores_range_starts_over_and_says_so(tmp_path: Path, server: _Server) -> None:
    server.knows_range = False
    server.most = len(QUESTIONS) // 2
    with pytest.raises(DataError, match=r"the server ignores Range, so each attempt starts over"):
        download(RATING, tmp_path, splits=("dev",), base_url=server.url)
    server.most = len(QUESTIONS)
    download(RATING, tmp_path, splits=("dev",), base_url=server.url)
    assert (tmp_path / "LaMP_3" / "dev" / "dev_questions.json").read_bytes() == QUESTIONS


@pytest.mark.parametrize("folder", ["LaMP_2/new", "LaMP_2"])
def test_lamp_2_is_found_at_either_place(tmp_path: Path, server: _Server, folder: str) -> None:
    server.offer(folder)
    files = download(task_named("lamp-2"), tmp_path, base_url=server.url)
    assert files[0] == tmp_path / "LaMP_2" / "train" / "train_outputs.json"


def test_what_is_no_json_is_dropped(tmp_path: Path, server: _Server) -> None:
    server.offer(questions=b"<html>sign in</html>")
    with pytest.raises(DataError, match=r"sent no valid JSON .* at character 0.*run the command again"):
        download(RATING, tmp_path, splits=("dev",), base_url=server.url)
    assert [file.name for file in (tmp_path / "LaMP_3" / "dev").iterdir()] == ["dev_outputs.json"]


def test_an_absent_file_names_the_address(tmp_path: Path, server: _Server) -> None:
    with pytest.raises(DataError, match=r"/time/LaMP_5/train/train_outputs\.json: the server has no such file \(404\)"):
        download(task_named("lamp-5"), tmp_path, base_url=server.url)


def test_a_host_that_cannot_be_reached(tmp_path: Path) -> None:
    with _serving(_Server()) as closed:
        url = closed.url
    with pytest.raises(DataError, match=r"cannot be reached: .*; check the network"):
        download(RATING, tmp_path, base_url=url)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "garbage://x"])
def test_a_proxy_that_cannot_be_used_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    if proxy.startswith("socks") and find_spec("socksio"):
        pytest.skip("socksio is installed, so that SOCKS proxies can be used")
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(DataError, match=r"proxy variables cannot be used.*pip install socksio"):
        download(task_named("lamp-3"), tmp_path)
