"""Progress is told at most five times a second, and always at a phase's ends."""

import time
from pathlib import Path

from cdcda_flower.runs.progress import Progress, read_progress


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_phase_adds_up(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "progress.json"
    progress = Progress(path, clock=clock)
    assert read_progress(path) is None
    progress.start("answer", 10)
    clock.now += 1
    progress.advance(2, 50)
    clock.now += 1
    progress.advance(3, 70)
    state = read_progress(path)
    assert state is not None
    assert (state.phase, state.done, state.total, state.tokens) == ("answer", 5, 10, 120)
    assert (state.started, state.updated) == (100.0, 102.0)


def test_writes_are_rare_but_the_last_is_told(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "progress.json"
    progress = Progress(path, clock=clock)
    progress.start("share", 3)
    progress.advance(1, 0)
    state = read_progress(path)
    assert state is not None
    assert state.done == 0
    progress.advance(1, 0)
    progress.advance(1, 0)
    state = read_progress(path)
    assert state is not None
    assert state.done == 3


def test_what_came_at_once_is_told_though_nothing_follows(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    progress = Progress(path)
    progress.start("generate", 480)
    for _ in range(107):
        progress.advance(2, 0)
    while (state := read_progress(path)) is None or state.done < 214:
        time.sleep(0.01)


def test_a_new_phase_begins_at_nought(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "progress.json", clock=Clock())
    progress.start("share", 1)
    progress.advance(1, 5)
    progress.start("supply", 4)
    state = read_progress(tmp_path / "progress.json")
    assert state is not None
    assert (state.phase, state.done, state.tokens) == ("supply", 0, 0)
