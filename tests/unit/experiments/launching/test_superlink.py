"""The run's own SuperLink: what is said where it ends or does not answer; that it works is what every end-to-end test shows."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cdcda_flower.errors import RunError
from experiments.launching.processes import RunProcesses, environment, free_port
from experiments.launching.superlink import superlink

Start = Callable[[int, float], None]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    def begin(port: int, timeout_s: float) -> None:
        with superlink(
            port,
            home=tmp_path / "home",
            log=tmp_path / "superlink.log",
            cwd=tmp_path,
            timeout_s=timeout_s,
            environment=environment(tmp_path, tmp_path / "cache"),
        ):
            pass

    yield begin
    RunProcesses(tmp_path).stop()


def test_one_that_cannot_listen_is_said_to_have_ended_with_its_words(start: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(RunError, match=r"(?s)SuperLink ended with exit code .* it said:.*in use"):
            start(taken.getsockname()[1], 600)


def test_one_that_does_not_answer_in_time_is_given_up(start: Start) -> None:
    with pytest.raises(RunError, match=r"did not answer within 0 s; raise start-timeout-s; it said:\nnothing"):
        start(free_port(), 0)
