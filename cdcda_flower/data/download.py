"""LaMP's official files (time split): resumed where they broke off, verified as JSON, and in place only when whole."""

import json
import logging
import os
import re
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx

from cdcda_flower.data.json_stream import stream_values
from cdcda_flower.data.lamp_files import SPLITS, split_file
from cdcda_flower.errors import DataError
from cdcda_flower.tasks import Task

OFFICIAL = "https://ciir.cs.umass.edu/downloads/LaMP"
_ATTEMPTS = 5  # of one file in one call; each goes on where the last one broke off
_TIMEOUT = httpx.Timeout(60, connect=20)  # seconds between two pieces, not for a whole file

Progress = Callable[[str, int, int], None]

_log = logging.getLogger(__name__)


class _Interrupted(Exception):
    """The connection broke; another attempt may go on from the .part file."""


def quiet(name: str, done: int, total: int) -> None:
    """Shows nothing."""


def download(
    task: Task, folder: Path, *, splits: Sequence[str] = SPLITS, base_url: str = OFFICIAL, on_progress: Progress = quiet
) -> tuple[Path, ...]:
    """Returns the task's files under `folder` in LaMP's layout, fetching those that are not there yet.

    `on_progress(file name, bytes done, bytes in all)`; the last is 0 where the server does not say it.
    """
    files = []
    with _client() as client:
        for split in splits:
            for kind in ("outputs", "questions"):  # the small file first: a wrong address shows at once
                file = split_file(folder, task, split, kind)
                if not file.is_file():
                    file.parent.mkdir(parents=True, exist_ok=True)
                    _File(client, file, on_progress).fetch(_addresses(base_url, task, split, file.name))
                files.append(file)
    return tuple(files)


def _client() -> httpx.Client:
    try:
        return httpx.Client(timeout=_TIMEOUT, follow_redirects=True)
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise DataError(
            f"the environment's proxy variables cannot be used: {error}; a SOCKS proxy needs `pip install socksio`, any other a "
            "url such as http://proxy:3128"
        ) from None


def _addresses(base_url: str, task: Task, split: str, name: str) -> tuple[str, ...]:
    # LaMP-2 was news first; its movies lie under `new/` in the user split. In the time split both are tried.
    folders = (f"{task.folder}/new", task.folder) if task.name == "lamp-2" else (task.folder,)
    return tuple(f"{base_url.rstrip('/')}/time/{folder}/{split}/{name}" for folder in folders)


class _File:
    """One file on its way: `.part` beside it grows over attempts and calls, and is renamed once it is verified."""

    def __init__(self, client: httpx.Client, file: Path, on_progress: Progress) -> None:
        self._client = client
        self._file = file
        self._part = file.with_name(file.name + ".part")
        self._on_progress = on_progress
        self._ignores_range = False

    def fetch(self, addresses: Sequence[str]) -> None:
        for address in addresses:
            if self._fetch_from(address):
                self._verify(address)
                os.replace(self._part, self._file)
                return
        raise DataError(
            f"{' and '.join(addresses)}: the server has no such file (404); get {self._file.name} of the time-based "
            f"split from LaMP's page and put it at {self._file}"
        )

    def _fetch_from(self, address: str) -> bool:
        """Returns whether the file is complete in `.part`; False where the server does not have it."""
        reason = ""
        for _ in range(_ATTEMPTS):
            try:
                return self._attempt(address)
            except _Interrupted as error:
                reason = str(error)
                _log.info("%s broke off after %d bytes: %s", address, self._size(), reason)
        again = "the server ignores Range, so each attempt starts over" if self._ignores_range else "the rest follows"
        raise DataError(
            f"{address} broke off {_ATTEMPTS} times, last after {self._size()} bytes: {reason}; "
            f"run the same command again ({again})"
        )

    def _attempt(self, address: str) -> bool:
        start = self._size()
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        try:
            with self._client.stream("GET", address, headers=headers) as response:
                if response.status_code == httpx.codes.NOT_FOUND:
                    return False
                self._save(response, start)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
            raise DataError(
                f"{address} cannot be reached: {error}; check the network, or copy the file to {self._file}"
            ) from None
        except httpx.TransportError as error:
            raise _Interrupted(str(error) or type(error).__name__) from None
        return True

    def _save(self, response: httpx.Response, start: int) -> None:
        if start and response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            if _total_of(response) != start:
                self._part.unlink()
                raise _Interrupted(f"the .part file held {start} bytes, more than the server's file")
            return
        if response.is_error:
            raise DataError(f"{response.url}: the server answered {response.status_code} {response.reason_phrase}")
        # A part that starts elsewhere would be spliced into nonsense.
        resumed = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        if start and not resumed:
            self._ignores_range = True
            _log.warning("%s: the server ignores Range; starting over", response.url)
        done = start if resumed else 0
        total = _total_of(response) if resumed else int(response.headers.get("Content-Length", 0))
        with self._part.open("ab" if resumed else "wb") as part:
            for (
                piece
            ) in response.iter_bytes():  # a piece size would make httpx hold bytes back and lose them on a break
                part.write(piece)
                done += len(piece)
                self._on_progress(self._file.name, done, total)

    def _size(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _verify(self, address: str) -> None:
        """Raises DataError, and drops the `.part` file, where what came is no JSON."""
        try:
            if self._file.name.endswith("_questions.json"):
                deque(stream_values(self._part), maxlen=0)
            else:
                json.loads(self._part.read_bytes())
        except (DataError, ValueError) as error:
            self._part.unlink()
            raise DataError(f"{address} sent no valid JSON ({error}); it was dropped: run the command again") from None


def _total_of(response: httpx.Response) -> int:
    match = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
    return int(match.group(1)) if match else 0
