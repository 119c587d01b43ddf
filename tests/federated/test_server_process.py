"""The cloud's process opens no user's folder and loads no device code: watched from inside, by an audit hook."""

import json
import os
import subprocess
import sys
from pathlib import Path

from federation import Federation
from lamp_folder import ROOT


def test_the_server_touches_no_private_folder(four: Federation, tmp_path: Path) -> None:
    config = four.config(runs_dir=str(tmp_path))
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config.to_flwr()))
    path = os.pathsep.join(str(folder) for folder in (ROOT, ROOT / "tests"))
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("server_process.py")), str(file)],
        env={**os.environ, "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["failures"] == ""
    assert report["answers"] == 4 * 3
    assert report["touched"] == []
    assert report["clients"] == []
    assert {event.split()[0] for event in report["control"]} >= {"open", "os.scandir"} or len(report["control"]) == 2
