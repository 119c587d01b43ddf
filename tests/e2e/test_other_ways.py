"""The other ways in: plain `flwr run`, and the installed wheel."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.runs.ledger import LedgerReader
from commands import BIN, DOUBLES, LIMIT_S, PACKAGES, Place, cdcda, listing, write_toml
from experiments.launching.launch import RAY_GAVE_UP
from experiments.launching.processes import free_port
from repository import ROOT

SUPERLINK_GAVE_UP = "Failed to start local SuperLink within"


def test_plain_flwr_run_makes_a_run_folder_of_its_own(
    place: Place, tree_before: dict[str, int], tmp_path: Path
) -> None:
    home = place.temporary / "flwr"
    environment = place.environment(
        FLWR_HOME=str(home),
        RAY_TMPDIR=str(place.temporary),
        CDCDA_RUNS_DIR=str(tmp_path / "runs"),
        FLWR_LOCAL_SUPERLINK_HTTP_API_PORT=str(free_port()),
        FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION="1",
        FLWR_TELEMETRY_ENABLED="0",
        FLWR_DISABLE_UPDATE_CHECK="1",
        PATH=os.pathsep.join([str(BIN), os.environ["PATH"]]),
    )
    # The bundle is the app here: the copied tree must not be found on the path as well.
    environment["PYTHONPATH"] = os.environ.get("PYTHONPATH", "")
    conf = write_toml(tmp_path / "smoke.toml", DOUBLES)
    federation = "num-supernodes=4 client-resources-num-cpus=1"
    command = [str(BIN / "flwr"), "run", ".", "--stream", "--run-config", str(conf), "--federation-config", federation]
    for _ in range(5):
        done = subprocess.run(
            command, cwd=place.tree, env=environment, text=True, capture_output=True, timeout=LIMIT_S, check=False
        )
        # Flower's own limit and Ray's, too short for a busy machine; nothing of ours has begun then.
        if not any(limit in done.stdout + done.stderr for limit in (SUPERLINK_GAVE_UP, RAY_GAVE_UP)):
            break
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
    runs = sorted((tmp_path / "runs").iterdir()) if (tmp_path / "runs").exists() else []
    assert len(runs) == 1, done.stdout + done.stderr
    folder = RunFolder(runs[0])
    assert folder.manifest().status == "finished", folder.manifest().error
    assert len(LedgerReader(folder.ledger_path).results()) == 4 * (3 + 2), "three methods, two of them swapped as well"
    assert listing(place.tree) == tree_before


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The wheel of the tree, installed without its dependencies into a folder."""
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("the wheel's build backend, hatchling, is not installed, and tests use no network")
    source = tmp_path / "source"
    for package in (*PACKAGES, "examples"):
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index"]
    for step in (
        [*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", str(tmp_path), str(source)],
        [*pip, "install", *offline, "--target", str(tmp_path / "site"), "--find-links", str(tmp_path), "cdcda-flower"],
    ):
        subprocess.run(
            step, check=True, timeout=LIMIT_S, cwd=tmp_path, env={**os.environ, "PIP_ROOT_USER_ACTION": "ignore"}
        )
    return tmp_path / "site"


def test_the_installed_wheel_runs_from_any_folder(installed: Path, place: Place, tmp_path: Path) -> None:
    conf = write_toml(tmp_path / "smoke.toml", DOUBLES)
    search = os.pathsep.join(filter(None, [str(installed), os.environ.get("PYTHONPATH", "")]))
    where = "from experiments.launching.staging import find_app; print(find_app().pyproject)"
    asked = subprocess.run(
        [sys.executable, "-c", where],
        cwd=place.work,
        env=place.environment(PYTHONPATH=search),
        capture_output=True,
        text=True,
        check=True,
    )
    assert asked.stdout.strip() == str(installed / "experiments" / "app" / "pyproject.toml")
    before = listing(installed)
    done = cdcda(place, "run", str(conf), "--name", "wheel", PYTHONPATH=search)
    assert done.code == 0, done.out + done.err
    assert done.folder.manifest().status == "finished"
    new = cdcda(place, "new", "filter", "from_wheel", PYTHONPATH=search)
    assert new.code == 0, new.err
    for file in ("from_wheel.py", "test_from_wheel.py"):
        (place.work / file).unlink()
    assert listing(installed) == before
