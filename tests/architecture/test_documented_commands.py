"""The commands of README and docs work: those that read are run, on small runs under the names that pages give them.

What trains or asks a network is not run here. Its configuration, or each of its sweep's cells, must be one that a run takes.
"""

import re
import shlex
from pathlib import Path

import pytest

from cdcda_flower.runs.tape import Tape
from experiments.cli import run_command
from experiments.settings import read_config
from experiments.sweeps.sweep_cells import read_cells
from pages import PAGES, commands_on
from paper_runs import add_swapped, make_run
from report_runs import filled
from repository import ROOT

# What is run by a test of its own, since it serves, trains, kills or downloads.
ELSEWHERE = {
    "audit": "tests/federated/test_audit.py",
    "dashboard": "tests/unit/experiments/dashboard/test_dashboard_command.py",
    "deploy-demo": "tests/e2e/test_deployment.py",
    "export": "tests/unit/experiments/test_export.py",
    "run --resume": "tests/e2e/test_resuming.py",
    "run --repeat": "tests/e2e/test_repeating.py",
    "data check": "tests/federated/test_own_data_page.py",
    "data prepare": "tests/federated/test_own_data_page.py",
    "data download": "tests/unit/cdcda_flower/data/test_download.py",
    "leakage": "tests/federated/test_leakage.py",
    "track": "tests/unit/experiments/reports/test_trackers.py",
    # Two share ratios, all subsets of filters, or answers of each device: more than these runs have.
    "filters RUN --scorer": "tests/unit/experiments/reports/test_scorer_study.py",
    "filters RUN RUN": "tests/unit/experiments/reports/test_filter_study.py",
    "report RUN RUN --figure 2": "tests/unit/experiments/paper/test_figures.py",
    "report RUN --figure 3": "tests/unit/experiments/paper/test_figures.py",
    "report RUN RUN --against cdcda@100": "tests/unit/experiments/paper/test_comparison.py",
    "report RUN RUN --traits": "tests/unit/experiments/paper/test_traits.py",
    "report RUN RUN --table 2": "tests/unit/experiments/paper/test_paper_tables.py",
}
SCORES = {
    "device": [2.0, 2.0, 1.0],
    "direct-ft": [1.0, 1.0, 1.0],
    "global-ft": [1.0, 2.0, 1.0],
    "cdcda": [1.0, 0.0, 1.0],
}
TRAINED = {method: scores for method, scores in SCORES.items() if method not in {"device", "global-ft"}}
# Without the comments beside them, and without `cdcda`.
COMMANDS = sorted({tuple(shlex.split(line, comments=True)[1:]) for page in PAGES for line in commands_on(page)})


def _is(command: tuple[str, ...], *names: str) -> bool:
    return any(" ".join(command).startswith(name) for name in names)


READ = [command for command in COMMANDS if not _is(command, "run", "sweep", *ELSEWHERE)]
RUN = [command for command in COMMANDS if _is(command, "run", "sweep") and not _is(command, *ELSEWHERE)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that has verdicts, and one for each of three seeds."""
    folder = tmp_path_factory.mktemp("runs")
    filled(folder).update(status="finished", error="")
    for seed in (1, 2, 3):
        add_swapped(make_run(folder, f"seed-{seed}", SCORES, seed=seed), TRAINED)
    return folder


@pytest.fixture
def place(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which a command is run, a home of its own, with the files that pages name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CDCDA_RUNS_DIR", str(runs))
    monkeypatch.setenv("CDCDA_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    for tape in ("cache/tape.sqlite", "tags.sqlite"):
        (tmp_path / tape).parent.mkdir(exist_ok=True)
        with Tape(tmp_path / tape, writable=True):
            pass
    for name in ("G.json", "P.json"):
        (tmp_path / name).write_text('{"task": "LaMP_2", "golds": [{"id": "1", "output": "comedy"}]}')
    return tmp_path


def test_a_command_that_is_tested_elsewhere_is_documented_and_its_test_exists() -> None:
    assert [name for name in ELSEWHERE if not any(_is(command, name) for command in COMMANDS)] == []
    assert [file for file in ELSEWHERE.values() if not (ROOT / file).is_file()] == []


@pytest.mark.parametrize("command", READ, ids=" ".join)
def test_what_reads_runs(command: tuple[str, ...], place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["RUN" if word == "RUN..." else word for word in command]
    of_seeds = words.count("RUN") > 1 or any(word in words for word in ("--table", "swap", "global-ft"))
    names = iter(["seed-1", "seed-2", "seed-3"] if of_seeds else ["run"])
    meant = {"METHOD": "direct-ft", "NAME": "my_name"}
    given = [next(names) if word == "RUN" else meant.get(word, re.sub("^~", str(place), word)) for word in words]
    assert run_command(given) == 0, capsys.readouterr().err


@pytest.mark.parametrize("command", RUN, ids=" ".join)
def test_what_runs_has_a_configuration_that_a_run_takes(command: tuple[str, ...], place: Path) -> None:
    kind, file, *rest = command
    overrides = [rest[at + 1] for at, word in enumerate(rest) if word == "--set"]
    profile = next((rest[at + 1] for at, word in enumerate(rest) if word == "--profile"), "")
    if not (place / file).exists():
        # A file of the reader's own.
        conf = ROOT / "experiments" / "conf"
        (place / file).symlink_to(conf / ("smoke.toml" if kind == "run" else "paper/table2.toml"))
        for base in (conf / "paper").glob("*.toml"):
            (place / base.name).symlink_to(base)
    if kind == "run":
        assert read_config(Path(file), _known(overrides)).method_names
    else:
        assert read_cells(Path(file), overrides, profile=profile)


def _known(overrides: list[str]) -> list[str]:
    # CONTRIBUTING adds this policy, step by step.
    return [override for override in overrides if override != "share-policy=longest"]
