"""The run's own SuperLink: what is said where it ends or does not answer; that it works is what every end-to-end test shows."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdcda_flower.errors import RunError
from experiments.processes import environment, free_port
from experiments.superlink import spoken, start_superlink, wait_for_superlink


@pytest.fixture
def silent() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def test_one_that_cannot_listen_is_said_to_have_ended(tmp_path: Path) -> None:
    home, log = tmp_path / "home", tmp_path / "superlink.log"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = start_superlink(
            port, home=home, log=log, environment=environment(tmp_path, tmp_path / "cache"), cwd=tmp_path
        )
        assert process.wait(timeout=600) != 0
        with pytest.raises(RunError, match="SuperLink ended with exit code"):
            wait_for_superlink(process, port, timeout_s=600)
    assert "in use" in spoken(home).read_text()


def test_one_that_does_not_answer_is_given_up(silent: subprocess.Popen[bytes]) -> None:
    with pytest.raises(RunError, match=r"did not answer within 0.5 s; raise start-timeout-s"):
        wait_for_superlink(silent, free_port(), timeout_s=0.5)
