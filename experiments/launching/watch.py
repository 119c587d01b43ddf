"""Shows how far a run is and waits for its end: a bar on a terminal, plain lines elsewhere."""

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from cdcda_flower.errors import RunError
from cdcda_flower.runs.folder import Manifest, RunFolder
from cdcda_flower.runs.progress import ProgressState, read_progress
from experiments.terminal import Terminal

POLL_S = 0.5
# The share of a phase from which on its pace is told.
_KNOWN = 0.05
LINE_EVERY_S = 30.0
_LAST_LINES = 30
# The command may be gone a moment before the manifest's last word is seen.
LAST_WORD_S = 3.0
# After the last word the federation closes Ray and its logs in its own time.
CLOSING_S = 15.0


class Display(Protocol):
    """Shows the state of a run, again and again."""

    def show(self, state: ProgressState) -> None:
        """Shows the state."""

    def close(self) -> None:
        """Leaves the terminal as it was."""


def eta_s(state: ProgressState) -> float | None:
    """Returns the seconds that the phase still takes at its pace so far; None before enough is done to say, and at its end."""
    # One answer of a hundred says little: the first batch holds the longest.
    if state.done < max(1, state.total * _KNOWN) or state.done >= state.total:
        return None
    return max(0.0, (state.updated - state.started) / state.done * (state.total - state.done))


def tokens_per_second(state: ProgressState) -> float:
    """Returns the phase's tokens per second so far; 0 where it counts none."""
    seconds = state.updated - state.started
    return state.tokens / seconds if seconds > 0 else 0.0


def pace(state: ProgressState) -> str:
    """Returns "about 0:40 left, 350 tokens/s" or what of it is known."""
    left, speed = eta_s(state), tokens_per_second(state)
    parts = [] if left is None else [f"about {_minutes(left)} left"]
    return ", ".join(parts + ([f"{speed:,.0f} tokens/s"] if speed >= 1 else []))


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class BarDisplay:
    """One bar per phase, on a terminal."""

    def __init__(self, terminal: Terminal) -> None:
        self._bars = terminal.bars()

    def show(self, state: ProgressState) -> None:
        """Moves the phase's bar; a new phase gets a new one."""
        self._bars.show(state.phase, state.done, state.total, pace(state))

    def close(self) -> None:
        """Leaves the bars as they stand."""
        self._bars.close()


class LineDisplay:
    """A line at every phase's begin, every half minute, and nothing else."""

    def __init__(self, say: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._phase = ""
        self._began = self._said = 0.0

    def show(self, state: ProgressState) -> None:
        """Says the state if it is news."""
        now = self._clock()
        if state.phase == self._phase and now - self._said < LINE_EVERY_S:
            return
        if state.phase != self._phase:
            self._phase, self._began = state.phase, now
        # A large batch ends after minutes: until then the time is the only sign that it runs.
        so_far = f"{_minutes(now - self._began)} so far" if now > self._began else ""
        self._said = now
        known = ", ".join(filter(None, (so_far, pace(state))))
        self._say(f"{state.phase}: {state.done}/{state.total}" + (f" ({known})" if known else ""))

    def close(self) -> None:
        """Nothing is left open."""


@dataclass(slots=True, kw_only=True)
class Watcher:
    """Waits until a run has ended; `is_alive` says whether the command that carries it still runs."""

    folder: RunFolder
    is_alive: Callable[[], bool]
    display: Display
    start_timeout_s: float
    clock: Callable[[], float] = field(default=time.monotonic)
    sleep: Callable[[float], None] = field(default=time.sleep)

    def wait(self) -> Manifest:
        """Returns the manifest of the ended run; raises RunError where it never started or ended without a word."""
        began = self.clock()
        while (manifest := self._look()).status == "created" and self.is_alive():
            if self.clock() - began > self.start_timeout_s:
                raise RunError(f"the run did not start within {self.start_timeout_s:g} s (start-timeout-s)")
            self.sleep(POLL_S)
        while manifest.status == "running" and self.is_alive():
            self.sleep(POLL_S)
            manifest = self._look()
        return self._last_word()

    def _last_word(self) -> Manifest:
        deadline = self.clock() + LAST_WORD_S
        while (manifest := self._look()).status in {"created", "running"}:
            if self.clock() > deadline:
                raise RunError(f'the run stopped in status "{manifest.status}" without saying why')
            self.sleep(POLL_S)
        deadline = self.clock() + CLOSING_S
        while self.is_alive() and self.clock() < deadline:
            self.sleep(POLL_S)
        return manifest

    def _look(self) -> Manifest:
        if (state := read_progress(self.folder.progress_path)) is not None:
            self.display.show(state)
        return self.folder.manifest()


def wait_for_end(
    folder: RunFolder, command: subprocess.Popen[bytes], terminal: Terminal, *, timeout_s: float
) -> Manifest:
    """Shows how far a run is until it has ended, and returns its manifest.

    Raises RunError, with the last words of its log, where it does not start within `timeout_s` or ends without a word.
    """
    display = BarDisplay(terminal) if terminal.shows_bars else LineDisplay(terminal.say)
    try:
        return Watcher(
            folder=folder, is_alive=lambda: command.poll() is None, display=display, start_timeout_s=timeout_s
        ).wait()
    except RunError as error:
        log = folder.flower_log
        said = last_words(log.read_text(encoding="utf-8", errors="replace"))
        raise RunError(f"{error}; the end of {log}:\n{said}") from None
    finally:
        display.close()


def last_words(text: str) -> str:
    """Returns the last lines of a log."""
    return "\n".join(text.rstrip().split("\n")[-_LAST_LINES:])
