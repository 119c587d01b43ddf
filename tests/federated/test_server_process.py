"""The cloud's process opens no user's folder and loads no device code: watched from inside, by an audit hook."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cdcda_flower.errors import DataError
from federation import Federation
from repository import ROOT
from strategies.server_app import _prepared


def test_the_server_touches_no_private_folder(four: Federation, tmp_path: Path) -> None:
    config = four.config(runs_dir=str(tmp_path))
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config.to_flwr()))
    path = os.pathsep.join(str(folder) for folder in (ROOT, ROOT / "tests"))
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "helpers" / "server_process.py"), str(file)],
        env={**os.environ, "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["failures"] == ""
    assert report["answers"] == 4 * 3
    assert report["touched"] == []
    assert report["clients"] == []
    # The hook does see: one file opened, one folder listed on purpose afterwards.
    assert [event.split()[0] for event in report["control"]] == ["open", "os.listdir"]


def test_another_process_prepares_the_same_data(four: Federation) -> None:
    assert _prepared(four.config()) == four.prepared(four.config())


def test_data_that_cannot_be_prepared_are_bad_input(four: Federation, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        _prepared(four.config(data=str(tmp_path / "nowhere")))
