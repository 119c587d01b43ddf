"""How far a run is: one small file, replaced atomically, at most some five times a second."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from cdcda_flower.files import write_atomic

WRITES_PER_SECOND = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressState:
    """The current phase: items done of `total`, tokens so far, and when it started and was last told (Unix seconds).

    `noted`: it has ended, and the manifest says what it took.
    """

    phase: str
    done: int
    total: int
    tokens: int
    started: float
    updated: float
    noted: bool = False


class Progress:
    """Tells whoever watches which phase runs and how much of it is done."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._state: ProgressState | None = None
        self._written = 0.0
        self._alone = threading.Lock()
        self._late: threading.Timer | None = None

    def start(self, phase: str, total: int) -> None:
        """Begins a phase of `total` items."""
        with self._alone:
            now = self._clock()
            self._state = ProgressState(phase=phase, done=0, total=total, tokens=0, started=now, updated=now)
            self._write()

    def advance(self, done: int, tokens: int) -> None:
        """Adds `done` finished items and `tokens` to the current phase."""
        with self._alone:
            if self._state is None:
                raise AssertionError("advance before start")
            state, now = self._state, self._clock()
            self._state = replace(state, done=state.done + done, tokens=state.tokens + tokens, updated=now)
            if self._state.done >= state.total or now - self._written >= 1 / WRITES_PER_SECOND:
                self._write()
            elif not self._late:
                # What comes from a tape comes at once, and the next item may take minutes.
                self._late = threading.Timer(1 / WRITES_PER_SECOND, self._catch_up)
                self._late.daemon = True
                self._late.start()

    def end(self) -> None:
        """Says that the manifest has what the current phase took."""
        with self._alone:
            assert self._state is not None
            self._state = replace(self._state, noted=True)
            self._write()

    def _catch_up(self) -> None:
        with self._alone:
            if self._late:
                self._write()

    def _write(self) -> None:
        assert self._state is not None
        if self._late:
            self._late.cancel()
            self._late = None
        write_atomic(self._path, TypeAdapter(ProgressState).dump_json(self._state).decode(), durable=False)
        self._written = self._state.updated


def read_progress(path: Path) -> ProgressState | None:
    """Returns the last state told, or None where no phase has begun or the file is damaged."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        return TypeAdapter(ProgressState).validate_json(text)
    except ValueError:
        return None  # empty after a power cut: it is never waited for on the disk
