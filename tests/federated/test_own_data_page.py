"""docs/how-to/your-own-data.md, followed from top to bottom: its files, its check's output, and a whole round over its table."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cdcda_flower.runs.ledger import LedgerReader
from experiments.cli import run_command
from experiments.settings import read_config
from federation import Federation
from repository import ROOT

PAGE = ROOT / "docs" / "how-to" / "your-own-data.md"
_BLOCK = re.compile(r"^```(?:python|toml)\n(# ([\w.]+)\n.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(name="folder")
def followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the page's files, in which its script has run."""
    for text, name in _BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    subprocess.run([sys.executable, "make_tickets.py"], cwd=tmp_path, check=True)
    monkeypatch.setenv("CDCDA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("CDCDA_RUNS_DIR", str(tmp_path / "runs"))
    return tmp_path


def test_the_check_says_what_the_page_shows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["data", "check", str(folder / "run.toml")]) == 0
    said = capsys.readouterr().out.replace(f"{folder}/", "")
    assert f"```text\n{said}```" in PAGE.read_text(encoding="utf-8")


def test_the_table_itself_can_be_checked_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [command] = re.findall(r"`cdcda (data check tickets[^`]+)`", PAGE.read_text(encoding="utf-8"))
    monkeypatch.chdir(folder)
    assert run_command(command.split()) == 0


def test_a_round_over_the_table_gives_every_user_results(folder: Path) -> None:
    config = read_config(folder / "run.toml")
    federation = Federation(folder, config.data)
    given: dict[str, Any] = {"task": config.task, "columns": config.columns, "test_per_user": 2, "num_users": 12}
    outcome = federation.run(federation.config(**given, methods="device,direct-ft,cdcda,cloud+rag"))
    assert outcome.failures == ""
    results = LedgerReader(outcome.folder.ledger_path).results()
    assert len({result.user_id for result in results}) == 12
    assert {result.queries for result in results} == {2}
    assert all({"hit:billing", "miss:returns", "correct"} <= result.sums.keys() for result in results)


def test_rows_that_cannot_be_read_are_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = folder / "tickets.csv"
    table.write_text(
        table.read_text(encoding="utf-8") + "agent-99,my cat,sales,2026-01-01\nagent-99,x\n", encoding="utf-8"
    )
    assert run_command(["data", "check", str(folder / "run.toml")]) == 2
    said = capsys.readouterr().out
    assert "2 rows cannot be read; a run stops at the first:" in said
    assert "row 418 (line 419): 'sales' is no label of routing" in said
    assert "row 419 (line 420): 2 cells, but 4 columns" in said
    assert "my cat" not in said
    assert run_command(["data", "prepare", str(folder / "run.toml")]) == 2
