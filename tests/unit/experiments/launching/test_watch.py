"""Watching a run: every way in which it can end, on a clock that does not wait."""

import io
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from cdcda_flower.errors import RunError
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.runs.progress import Progress, ProgressState
from experiments.launching.watch import BarDisplay, LineDisplay, Watcher, eta_s, pace, tokens_per_second
from experiments.terminal import Terminal


class Screen(io.StringIO):
    """What a terminal was told."""

    def isatty(self) -> bool:
        return True


@dataclass
class World:
    """A clock that jumps, and what happens when."""

    events: dict[float, Callable[[], object]] = field(default_factory=dict)
    now: float = 0.0
    alive: bool = True

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for moment in [moment for moment in sorted(self.events) if moment <= self.now]:
            self.events.pop(moment)()

    def die(self) -> None:
        self.alive = False


def _watcher(folder: RunFolder, world: World, said: list[str]) -> Watcher:
    return Watcher(
        folder=folder,
        is_alive=lambda: world.alive,
        display=LineDisplay(said.append, clock=world.clock),
        start_timeout_s=60,
        clock=world.clock,
        sleep=world.sleep,
    )


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, "run")


def test_a_finished_run_is_waited_for_until_its_command_is_gone(folder: RunFolder) -> None:
    world, said = World(), list[str]()
    world.events = {
        5.0: lambda: folder.update(status="running"),
        6.0: lambda: Progress(folder.progress_path).start("share", 4),
        20.0: lambda: folder.update(status="finished"),
        25.0: world.die,
    }
    assert _watcher(folder, world, said).wait().status == "finished"
    assert world.now == pytest.approx(25, abs=1)
    assert said == ["share: 0/4"]


def test_a_command_that_hangs_after_the_end_is_not_waited_for_forever(folder: RunFolder) -> None:
    folder.update(status="finished")
    world = World()
    assert _watcher(folder, world, []).wait().status == "finished"
    assert world.now < 20


def test_a_run_that_never_starts_fails_at_the_timeout(folder: RunFolder) -> None:
    world = World()
    with pytest.raises(RunError, match=r"did not start within 60 s \(start-timeout-s\)"):
        _watcher(folder, world, []).wait()
    assert world.now == pytest.approx(60, abs=2)


@pytest.mark.parametrize("status", ["created", "running"])
def test_a_command_that_dies_without_a_word_is_a_failed_run(folder: RunFolder, status: str) -> None:
    folder.update(status=status)
    world = World()
    world.events = {10.0: world.die}
    with pytest.raises(RunError, match=f'stopped in status "{status}"'):
        _watcher(folder, world, []).wait()
    assert world.now < 20


def test_a_failure_is_returned_with_its_reason(folder: RunFolder) -> None:
    world = World(alive=False)
    folder.update(status="failed", error="user u3 failed", error_kind="run")
    assert _watcher(folder, world, []).wait().error == "user u3 failed"


def _state(done: int, tokens: int = 0) -> ProgressState:
    return ProgressState(phase="answer", done=done, total=10, tokens=tokens, started=100.0, updated=120.0)


def test_pace_says_what_is_known() -> None:
    assert eta_s(_state(0)) is None
    assert eta_s(_state(4)) == pytest.approx(30)
    # What comes next has no name yet: "about 0:00 left" would be said for as long as it takes.
    assert eta_s(_state(10)) is None
    assert tokens_per_second(_state(4, 1000)) == pytest.approx(50)
    assert pace(_state(4, 1000)) == "about 0:30 left, 50 tokens/s"
    assert pace(_state(0)) == ""
    few = replace(_state(4, 2), total=100)
    assert (eta_s(few), pace(few)) == (None, "")


def test_lines_come_at_phase_changes_and_every_half_minute() -> None:
    world, said = World(), list[str]()
    display = LineDisplay(said.append, clock=world.clock)
    for _ in range(100):
        display.show(_state(1))
        world.now += 1
    display.close()
    assert said == ["answer: 1/10 (about 3:00 left)"] + [
        f"answer: 1/10 ({elapsed} so far, about 3:00 left)" for elapsed in ("0:30", "1:00", "1:30")
    ]


def test_bars_show_the_phase() -> None:
    screen = Screen()
    display = BarDisplay(Terminal(screen, width=120))
    display.show(_state(4, 1000))
    display.close()
    assert "answer" in screen.getvalue()
    assert "4/10" in screen.getvalue()
