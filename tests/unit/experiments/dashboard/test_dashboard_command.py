"""The command prints its link, ends quietly at Ctrl-C, and shows nobody its token."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from dashboard_runs import write_run
from repository import ROOT


def test_ctrl_c_ends_it_without_an_error(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "alpha", people=2)
    environment = {
        **os.environ,
        "CDCDA_RUNS_DIR": str(tmp_path / "runs"),
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }
    with subprocess.Popen(
        [sys.executable, "-c", "from experiments.cli import main; main()", "dashboard", "--no-open"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as command:
        assert command.stdout
        link = re.search(r"(http://127\.0\.0\.1:\d+/)#token=(\S+)", command.stdout.readline())
        assert link
        with httpx.Client(trust_env=False, timeout=30) as client:
            assert client.get(link[0]).status_code == 200
            asked = client.get(f"{link[1]}api/runs", headers={"authorization": f"Bearer {link[2]}"})
            assert asked.json()["runs"][0]["run"] == "alpha"
            # As a page that is open: its stream of events goes on until the end.
            with client.stream("GET", f"{link[1]}api/events", headers=asked.request.headers) as events:
                assert next(events.iter_lines()).startswith("data:")
                command.send_signal(signal.SIGINT)
                said = command.stdout.read()
        assert command.wait(timeout=30) == 0
    assert "Traceback" not in said
    assert "interrupted" not in said
